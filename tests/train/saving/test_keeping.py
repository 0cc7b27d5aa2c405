"""Which steps are saved, and which of them are kept."""

import threading

import pytest

from model.errors import StorageError
from tests.train.saving.saves import at, restore
from train import checkpoint
from train.checkpoint import Checkpoints


def test_the_newest_are_kept(folder):
  with Checkpoints(folder, keep=2) as saves:
    for step in range(1, 5):
      saves.save(step, at(1), {})
      saves.wait()
    assert saves.steps() == [3, 4]
  assert sorted(path.name for path in folder.iterdir()) == ['3', '4']


def test_no_step_is_deleted_before_a_newer_one_is_verified(saved, monkeypatch):
  monkeypatch.setattr(checkpoint.writing.integrity, 'write', lambda *args: (_ for _ in ()).throw(OSError('cut off')))
  with Checkpoints(saved, keep=1, pauses=()) as saves:
    saves.save(4, at(4), {})
    with pytest.raises(StorageError):
      saves.wait()
    assert saves.steps() == [1, 2, 3]


def test_a_step_that_is_there_is_not_saved_again(saved):
  before = (saved / '3' / 'integrity.json').stat().st_mtime_ns
  with Checkpoints(saved) as saves:
    assert saves.save(3, at(3), {})
    assert not saves.busy
  assert (saved / '3' / 'integrity.json').stat().st_mtime_ns == before


def test_a_save_that_would_pile_up_is_skipped_loudly(folder, monkeypatch, caplog):
  go_on = threading.Event()
  write = checkpoint.writing.write
  monkeypatch.setattr(checkpoint.writing, 'write', lambda *args: (go_on.wait(20), write(*args)))
  with Checkpoints(folder) as saves:
    assert saves.save(1, at(1), {})
    assert not saves.save(2, at(2), {}) and not saves.save(3, at(3), {})
    assert 'step 2 is not saved' in caplog.text and len(threading.enumerate()) < 50
    go_on.set()
    saves.wait()
    assert saves.save(4, at(4), {})
  assert restore(folder)[0].step == 4
