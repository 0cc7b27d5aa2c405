"""The watchdog ends what stands still, says where, and leaves alone what moves or rests."""

import subprocess
import sys
import time

import pytest

from train.watchdog import Watchdog

LIFE = '''
import time
from train.watchdog import Watchdog

def a_place_where_it_hangs():
  {hang}

with Watchdog(least=0.4, factor=3.0) as dog:
  for _ in range(4):
    time.sleep(0.02)
    dog.beat()
  a_place_where_it_hangs()
  dog.beat()
print('went on')
'''


def live(hang: str) -> subprocess.CompletedProcess:
  return subprocess.run([sys.executable, '-c', LIFE.format(hang=hang)], capture_output=True, text=True, timeout=60)


def test_standing_still_ends_with_all_stacks_and_code_69():
  done = live('time.sleep(30)')
  assert done.returncode == 69
  assert 'peer.stuck' in done.stderr and 'a_place_where_it_hangs' in done.stderr and 'watchdog' in done.stderr


@pytest.mark.parametrize('hang', ['time.sleep(0.1)', '\n  with dog.rest(): time.sleep(1.5)'])
def test_a_pause_and_a_rest_are_no_standing_still(hang):
  done = live(hang)
  assert (done.returncode, done.stdout) == (0, 'went on\n'), done.stderr


def test_the_limit_follows_the_steps():
  dog = Watchdog(least=60.0, factor=20.0)
  assert dog.limit == 60.0
  dog.durations.extend([10.0, 12.0, 500.0])
  assert dog.limit == 240.0


def test_nothing_is_expected_before_the_first_step():
  dog = Watchdog(least=0.01)
  with dog:
    time.sleep(0.2)                       # would have ended this very process
