"""Disks that are full, gone, forbidden or slow: a save that fails is said, and costs nothing that was there."""

import logging
import resource
import shutil
from contextlib import contextmanager

import pytest

from model.errors import CheckpointError, StorageError
from tests.train.saving.saves import at, fail, restore, same
from train import checkpoint
from train.checkpoint import Checkpoints
from train.saving import shelf

pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')      # Orbax's writers, cut off


@contextmanager
def files_of_at_most(size: int):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_save_is_tried_again_then_raised_and_leaves_nothing(saved, caplog):
  before = sorted(saved.rglob('*'))
  with Checkpoints(saved, keep=3, pauses=(0.0, 0.0)) as saves:
    with files_of_at_most(1000):
      saves.save(4, at(4), {})
      with pytest.raises(StorageError, match='3 tries failed') as failure:
        saves.wait()
    assert failure.value.exit_code == 74 and failure.value.id == 'checkpoint.save-failed'
    assert caplog.text.count('could not be saved') == 2
    assert sorted(saved.rglob('*')) == before
    saves.check()                                     # said once
    assert saves.save(4, at(4), {})                   # and when there is room again, it goes on
  assert same(restore(saved)[0], at(4))


def test_a_hiccup_costs_nothing(folder, monkeypatch, caplog):
  write, failures = checkpoint.writing.write, iter([OSError('hiccup')])
  monkeypatch.setattr(checkpoint.writing, 'write',
                      lambda *args: write(*args) if (error := next(failures, None)) is None else fail(error))
  with Checkpoints(folder, pauses=(0.0,)) as saves:
    saves.save(1, at(1), {})
  assert same(restore(folder)[0], at(1)) and 'hiccup' in caplog.text


def test_a_failure_is_seen_by_the_next_check_and_the_next_save(folder, monkeypatch):
  monkeypatch.setattr(checkpoint.writing, 'write', lambda *args: fail(OSError('no')))
  with Checkpoints(folder, pauses=()) as saves:
    for call in (saves.check, lambda: saves.save(2, at(2), {})):
      saves.save(1, at(1), {})
      saves.thread.join()
      with pytest.raises(StorageError, match='1 tries failed'):
        call()


def test_too_little_room_is_said_at_the_start_and_at_a_save(saved):
  with pytest.raises(StorageError, match='must stay free') as refusal:
    restore(saved, reserve=10**18)
  assert refusal.value.id == 'store.full'
  with Checkpoints(saved, reserve=10**18, pauses=()) as saves:
    saves.save(4, at(4), {})
    with pytest.raises(StorageError, match='must stay free'):
      saves.wait()
  assert restore(saved)[1] == {'source': 3}


@pytest.mark.parametrize('call', ['pathlib.Path.read_bytes', 'train.saving.integrity._hash'])
def test_what_may_not_be_read_is_no_damage(saved, monkeypatch, call):
  monkeypatch.setattr(call, lambda *args, **kwargs: fail(PermissionError(13, 'Permission denied', 'it')))
  with pytest.raises(StorageError, match='Permission denied'):
    restore(saved)
  assert sorted(path.name for path in saved.iterdir()) == ['1', '2', '3']


def test_whole_files_that_cannot_be_read_are_no_damage(saved, monkeypatch):
  monkeypatch.setattr('train.saving.arrays.read', lambda *args: fail(MemoryError('no memory')))
  with pytest.raises(CheckpointError, match='no memory') as refusal:
    restore(saved)
  assert refusal.value.id == 'checkpoint.unreadable' and (saved / '3').is_dir()


def test_an_old_step_that_cannot_be_deleted_costs_nothing(saved, monkeypatch, caplog):
  monkeypatch.setattr(shelf, 'remove', lambda path: fail(OSError('busy')))
  with Checkpoints(saved, keep=1) as saves:
    saves.save(4, at(4), {'source': 4})
  assert 'busy' in caplog.text and sorted(path.name for path in saved.iterdir()) == ['1', '2', '3', '4']


def test_a_file_is_no_folder(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(StorageError):
    Checkpoints(tmp_path / 'file')


def test_a_folder_that_goes_away_is_told(saved):
  with Checkpoints(saved, pauses=()) as saves:
    shutil.rmtree(saved)
    saves.save(4, at(4), {})
    with pytest.raises(StorageError, match='step 4'):
      saves.wait()


def test_an_error_of_the_training_is_not_hidden_by_one_of_the_last_save(folder, monkeypatch, caplog):
  monkeypatch.setattr(checkpoint.writing, 'write', lambda *args: fail(OSError('no')))
  with pytest.raises(ZeroDivisionError), Checkpoints(folder, pauses=()) as saves:
    saves.save(1, at(1), {})
    raise ZeroDivisionError
  assert any(record.levelno == logging.ERROR and 'save-failed' in record.getMessage() for record in caplog.records)
