"""The watchdog ends what stands still, says where, and leaves alone what moves or rests."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from train.watchdog import Watchdog

ROOT = Path(__file__).resolve().parents[2]
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


def test_a_process_that_was_stopped_did_not_stand_still():
  code = LIFE.format(hang='print("here", flush=True); time.sleep(0.2)')
  with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True) as life:
    assert life.stdout.readline() == 'here\n'
    life.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    life.send_signal(signal.SIGCONT)
    assert life.stdout.read() == 'went on\n' and life.wait(60) == 0


class Noted(Watchdog):
  """Knows which threads said that something is expected, or is not."""

  def __setattr__(self, name, value):
    if name == 'last':
      self.__dict__.setdefault('said', set()).add(threading.current_thread().name)
    super().__setattr__(name, value)


def test_one_that_wakes_as_a_rest_begins_is_not_taken_to_work(monkeypatch):
  """The watching thread once moved the last beat by the time of a stop: after the rest began, a rest was a step."""
  with Noted(least=0.02) as dog:
    dog.beat()
    monkeypatch.setattr(dog.over, 'wait', lambda pause, wait=dog.over.wait: wait(0.2))      # longer than asked for: a stop
    time.sleep(0.5)
    assert dog.asleep > 0.1
  assert dog.said == {threading.current_thread().name}


TRAINING = '''
import functools, sys, time
from pathlib import Path
import train.training
from tests.campaign.real import live
from train.data.pipeline import Batches

def slow(owner, name, seconds, at):
  do, calls = getattr(owner, name), []
  def a_slow_call(*given):
    calls.append(given)
    time.sleep(seconds if len(calls) == at else 0)
    return do(*given)
  setattr(owner, name, a_slow_call)

train.training.Watchdog = functools.partial(train.training.Watchdog, least=3.0, factor=1.0)
slow({slow})
live(Path(sys.argv[1]), steps=8, every=0)
'''


@pytest.mark.parametrize('slow, code', [("Batches, '__call__', 90, 6", 69), ("train.training.Training, 'save', 6, 1", 0)])
def test_a_training_whose_data_hangs_is_ended_and_one_that_saves_slowly_is_not(slow, code, tmp_path):
  done = subprocess.run([sys.executable, '-c', TRAINING.format(slow=slow), tmp_path], cwd=ROOT, capture_output=True, text=True,
                        timeout=300)
  assert done.returncode == code, done.stderr
  assert ('a_slow_call' in done.stderr) == ('peer.stuck' in done.stderr) == (code == 69), done.stderr


def test_the_limit_follows_the_steps():
  dog = Watchdog(least=60.0, factor=20.0, first=3600.0)
  assert dog.limit == 3600.0            # a first step of 61 s is slow, not stuck
  dog.durations.append(1.0)
  assert dog.limit == 60.0
  dog.durations.clear()
  dog.durations.extend([10.0, 12.0, 500.0])
  assert dog.limit == 240.0


def test_nothing_is_expected_before_the_first_step():
  dog = Watchdog(least=0.01)
  with dog:
    time.sleep(0.2)                       # would have ended this very process
