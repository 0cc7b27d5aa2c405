"""One training a folder: the second is refused and told who holds it; a dead holder holds nothing."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from model.errors import StorageError
from train import lock
from train.lock import LOCK, Lock

HOLD = 'import sys, time; from pathlib import Path; from train.lock import Lock\n' \
       'with Lock(Path(sys.argv[1])): print("held", flush=True); time.sleep(60)'


@pytest.fixture
def holder(tmp_path):
  """Another process that holds the folder."""
  process = subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.wait()


def test_the_second_is_told_who_holds_it(tmp_path, holder):
  with pytest.raises(StorageError, match=f'process {holder.pid} on {socket.gethostname()}') as refusal, Lock(tmp_path):
    pass
  assert refusal.value.exit_code == 74 and refusal.value.id == 'store.locked'
  assert 'another --runs' in str(refusal.value)


def test_a_killed_holder_is_explained_and_replaced(tmp_path, holder, caplog):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  with Lock(tmp_path):
    assert f'process {holder.pid}' in caplog.text and 'takes over' in caplog.text
    assert json.loads((tmp_path / LOCK).read_text())['pid'] == os.getpid()


def test_a_lock_is_given_back_when_the_block_ends(tmp_path, caplog):
  for _ in range(2):
    with Lock(tmp_path):
      pass
  assert not caplog.text


def test_one_process_cannot_take_it_twice(tmp_path):
  with Lock(tmp_path):
    with pytest.raises(StorageError, match='this very process'), Lock(tmp_path):
      pass
    with pytest.raises(StorageError, match='this very process'), Lock(tmp_path / 'x' / '..'):
      pass


def write(folder, **changes):
  holder = lock._me() | {'pid': 1, 'since': 'yesterday'} | changes
  (folder / LOCK).write_text(json.dumps(holder))


def test_a_holder_on_another_machine_cannot_be_judged(tmp_path):
  write(tmp_path, host='elsewhere', boot='other')
  with pytest.raises(StorageError, match='process 1 on elsewhere, since yesterday') as refusal, Lock(tmp_path):
    pass
  assert f'delete {tmp_path / LOCK}' in str(refusal.value)


def test_after_a_restart_of_this_machine_all_holders_are_gone(tmp_path, caplog):
  write(tmp_path, boot='before the restart')
  with Lock(tmp_path):
    assert 'takes over' in caplog.text


def test_a_process_with_the_number_of_a_dead_holder_is_not_taken_for_it(tmp_path, caplog):
  write(tmp_path, pid=os.getppid())       # lives, but does not hold the kernel's lock
  with Lock(tmp_path):
    assert 'takes over' in caplog.text


@pytest.mark.parametrize('content', ['', '{', '[]', 'null', '{"pid": 1}', '\x00' * 50])
def test_a_torn_lock_file_holds_nothing(tmp_path, content):
  (tmp_path / LOCK).write_text(content)
  with Lock(tmp_path):
    assert str(os.getpid()) in (tmp_path / LOCK).read_text()


def test_without_locks_in_the_file_system_a_living_process_still_counts(tmp_path, monkeypatch):
  monkeypatch.setattr('train.lock._lock', lambda handle: None)
  write(tmp_path, pid=os.getppid())
  with pytest.raises(StorageError, match=f'process {os.getppid()}'), Lock(tmp_path):
    pass
  write(tmp_path, pid=2**22 + 1)          # above the largest process number of Linux
  with Lock(tmp_path):
    pass
