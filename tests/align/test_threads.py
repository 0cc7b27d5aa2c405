"""Work in threads of its own: in order, so many at once, and nobody waits for what hangs."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from align import threads

ROOT = Path(__file__).parents[2]


def test_results_are_in_the_order_of_the_items_and_no_more_are_done_at_once_than_may_be():
  guard, now, most = threading.Lock(), [0], [0]

  def slow(item):
    with guard:
      now[0] += 1
      most[0] = max(most[0], now[0])
    time.sleep(0.01 * (item % 3))
    with guard:
      now[0] -= 1
    return -item

  assert threads.each(slow, range(30), 4, 'test') == [-item for item in range(30)]
  assert most == [4] and threads.each(slow, [], 4, 'test') == []


def test_each_item_is_done_once_by_impatient_threads():
  interval, done = sys.getswitchinterval(), []
  sys.setswitchinterval(1e-6)
  try:
    for _ in range(50):
      done.clear()
      threads.each(done.append, range(200), 8, 'test')
      assert sorted(done) == list(range(200))
  finally:
    sys.setswitchinterval(interval)


def test_the_first_failure_is_raised_at_once_and_what_waits_is_not_begun():
  free, begun = threading.Event(), []

  def work(item):
    begun.append(item)
    if item == 0:
      raise OverflowError
    free.wait(20)

  start = time.monotonic()
  with pytest.raises(OverflowError):
    threads.each(work, range(10), 2, 'test')
  assert time.monotonic() - start < 5 and threads.busy()
  free.set()
  time.sleep(0.2)
  assert len(begun) <= 4 and not threads.busy()


LEAVES = """
import os, signal, sys, threading, time
from align import threads
from align.endpoint import Endpoint
from align.questions import Question
from align.rewards import Answer, Jury, Part, TextReward
from experiments.command import leave
from model.chat import Message
from model.errors import DataError

class Hangs(TextReward):
  def score(self, question, answer):
    {work}
    return 0.0

def ask():
  import socket
  silent = socket.create_server(('127.0.0.1', 0))
  threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
  client = Endpoint(f'http://127.0.0.1:{{silent.getsockname()[1]}}/v1', 'm', seconds=60.0).open(None)
  client.write([(Message('user', 'Two?'),)] * 6, range(6))

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
  {ask}
except (DataError, KeyboardInterrupt) as error:
  print(getattr(error, 'id', type(error).__name__), flush=True)
leave(65)
sys.exit(64)
"""
QUESTION = "Question('q', (Message('user', 'Two?'),))"
JURY = f"Jury((Part('slow', Hangs(), seconds=1.0),), None)([Answer({QUESTION}, (), (), 'a', 'eos')])"
JAX = """
    import jax, jax.numpy as jnp
    f, x = jax.jit(lambda x: jnp.sin(x @ x)), jnp.ones((200, 200))
    while True:
      x = f(x)
"""


@pytest.mark.parametrize('work, ask, said', [('time.sleep(60)', JURY, 'reward.slow'), (JAX, JURY, 'reward.slow'),
                                             ('', 'ask()', 'KeyboardInterrupt')], ids=['sleeps', 'computes', 'asks'])
def test_a_process_leaves_though_a_reward_or_a_server_hangs(work, ask, said):
  start = time.monotonic()
  done = subprocess.run([sys.executable, '-c', LEAVES.format(work=work, ask=ask)], cwd=ROOT, capture_output=True, text=True,
                        timeout=120)
  assert (done.stdout, done.returncode) == (f'{said}\n', 65), done.stderr
  assert time.monotonic() - start < 30
