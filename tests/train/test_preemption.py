"""Signals ask; a second Ctrl-C does not ask."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.campaign.real import STEPS, live
from train import training
from train.hooks import Preempted
from train.ledger import lives
from train.preemption import INTERRUPTED, Preemption


def until(condition, seconds=5.0):
  end = time.monotonic() + seconds
  while not condition() and time.monotonic() < end:
    time.sleep(0.01)
  return condition()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_and_does_not_kill(number, capfd):
  with Preemption() as preemption:
    assert not preemption.asked(1)
    os.kill(os.getpid(), number)
    assert until(lambda: preemption.asked(2))
  assert 'saving after this step' in capfd.readouterr().err


def test_what_was_there_before_is_there_after():
  signal.signal(signal.SIGINT, signal.default_int_handler)      # a shell may start background jobs that ignore Ctrl-C
  before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  with Preemption():
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] != before
  assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
  with pytest.raises(KeyboardInterrupt):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


def test_two_terminations_are_one_wish():
  with Preemption() as preemption:
    for _ in range(2):
      os.kill(os.getpid(), signal.SIGTERM)
    assert until(lambda: preemption.asked(1))


STUCK = '''
import hashlib
from train.preemption import Preemption
with Preemption():
  print("in", flush=True)
  hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)      # minutes of C code outside the interpreter: a compilation
'''


def test_a_second_interrupt_leaves_at_once_whatever_the_main_thread_does():
  process = subprocess.Popen([sys.executable, '-c', STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  try:
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == INTERRUPTED == 130
    assert 'leaving at once' in process.stderr.read()
  finally:
    process.kill()


@pytest.mark.parametrize('moment', ['set_wakeup_fd', 'signal'])
def test_a_signal_is_not_lost_while_it_begins_to_listen_or_ends(moment, monkeypatch):
  """Sent before each call by which handlers change: it asks, or it interrupts."""
  for strike in (1, 2, 3, 4):
    with monkeypatch.context() as patch:
      assert heard(patch, moment, strike), f'call {strike} of {moment}'


def heard(patch, moment: str, strike: int) -> bool:
  """Whether a signal before that call asked or interrupted; true if there was no such call."""
  signal.signal(signal.SIGINT, signal.default_int_handler)
  real, calls, preemption = getattr(signal, moment), [], Preemption()

  def struck(*given, **how):
    calls.append(given)
    if len(calls) == strike:
      signal.raise_signal(signal.SIGINT)
    return real(*given, **how)

  patch.setattr(signal, moment, struck)
  try:
    with preemption:
      pass
    return len(calls) < strike or until(lambda: preemption.told, 1.0)
  except KeyboardInterrupt:
    return True
  finally:
    patch.undo()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


UNHEARD = """
import os, signal, time
from train.preemption import Preemption
reader, writer = os.pipe()
os.dup2(writer, 2)
os.close(reader), os.close(writer)
with Preemption() as preemption:
  for _ in range(2):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.5)
    print(preemption.asked(1), flush=True)
"""


def test_a_wish_is_heard_where_nobody_hears_the_answer():
  """Ctrl-C ends the `tee` that reads what a run says, too."""
  done = subprocess.run([sys.executable, '-c', UNHEARD], capture_output=True, text=True, timeout=60)
  assert (done.returncode, done.stdout) == (INTERRUPTED, 'True\n')


def test_a_wish_that_comes_after_the_last_step_keeps_the_next_thing_from_being_begun(tmp_path, monkeypatch):
  loop = training.loop

  def told_at_the_end(*parts):
    state = loop(*parts)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
    return state

  monkeypatch.setattr(training, 'loop', told_at_the_end)
  with pytest.raises(Preempted):
    live(tmp_path)
  monkeypatch.undo()
  assert [len(life.steps) for life in lives(live(tmp_path) / 'ledger.jsonl')] == [STEPS, 0]
