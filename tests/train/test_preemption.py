"""Signals ask; a second Ctrl-C does not ask."""

import os
import signal
import subprocess
import sys
import time

import pytest

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
