"""Processes that prepare documents: none outlives whom it works for, and Ctrl-C is not theirs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.errors import PeerError
from train.data.workers import in_order, processes

ROOT = Path(__file__).parents[2]
WORK = """
import os, time
from train.data.workers import in_order, processes

def work(item):
  print(os.getpid(), flush=True)
  time.sleep(0.2)
  return item

def items():
  yield from range(4)
  time.sleep(60)                          # the workers wait for more

if __name__ == '__main__':
  try:
    with processes(2) as pool:
      list(in_order(pool, work, items(), 4))
  except KeyboardInterrupt:
    print('interrupted', flush=True)
"""


def runs(pid: int) -> bool:
  try:
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
  except OSError:
    return False


@pytest.fixture
def working(tmp_path):
  """A process group that prepares, and the two workers of it."""
  (tmp_path / 'work.py').write_text(WORK)
  signal.signal(signal.SIGINT, signal.default_int_handler)       # a background job may ignore it, and so its children
  with subprocess.Popen([sys.executable, tmp_path / 'work.py'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                        start_new_session=True, env=os.environ | {'PYTHONPATH': str(ROOT)}) as process:
    workers = set()
    while len(workers) < 2:
      workers.add(int(process.stdout.readline()))
    yield process, workers
    if any(map(runs, (process.pid, *workers))):
      os.killpg(process.pid, signal.SIGKILL)


def test_workers_end_with_one_that_is_killed(working):
  process, workers = working
  process.kill()
  end = time.monotonic() + 10
  while any(map(runs, workers)) and time.monotonic() < end:
    time.sleep(0.05)
  assert not [pid for pid in workers if runs(pid)]


def test_ctrl_c_is_told_by_one_process_alone(working):
  process, _ = working
  time.sleep(1.0)
  os.killpg(process.pid, signal.SIGINT)                # as a terminal does
  out, err = process.communicate(timeout=30)
  assert out.splitlines()[-1] == 'interrupted' and err == '' and process.returncode == 0


def test_a_killed_worker_is_said():
  with pytest.raises(PeerError, match='killed') as caught, processes(2) as pool:
    list(in_order(pool, os._exit, [1], 4))
  assert caught.value.id == 'data.worker-gone'
