"""A full disk: nothing that was saved is lost, the run says so and ends with 74, and goes on when there is room.

A file system of a fixed size in memory stands for the disk, where mounting is allowed. (Limits on the size of files,
which need no rights, are tried in tests/train/saving/test_storage.py.)
"""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from model.errors import StorageError
from tests.campaign.resume import difference
from tests.campaign.trainer import live
from train.ledger import Ledger
from train.saving import shelf, writing

SIZE = 2**22        # bytes; a save of this training takes 0.4 MB
STEPS = 12
LEFT = (0, 4096, 30_000, 80_000, 140_000, 200_000, 260_000, 320_000, 380_000, 400_000)      # bytes


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
  folder = tmp_path / 'disk'
  folder.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', f'size={SIZE}', 'tmpfs', folder]
  if subprocess.run(mount, capture_output=True, check=False).returncode:
    pytest.skip('mounting is not allowed here')
  yield folder
  subprocess.run(['umount', folder], check=True)


def fill(disk: Path, left: int) -> Path:
  """Takes all room but `left` bytes."""
  free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
  (disk / 'filler').write_bytes(bytes(max(free - left, 0)))
  return disk / 'filler'


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning', 'ignore::RuntimeWarning')      # Orbax's
@pytest.mark.parametrize('left', LEFT)
def test_a_full_disk_costs_nothing_but_time(disk, tmp_path, left):
  """However far the save of step 6, or the ledger before it, gets until the disk is full."""
  straight, write = live(tmp_path / 'straight', STEPS), Ledger.write

  def fill_up(self, step, values):
    if step == 5 and self.path.is_relative_to(disk):
      while not (disk / 'run' / 'checkpoints' / '3').exists():
        time.sleep(0.01)
      fill(disk, left)
    write(self, step, values)

  unchecked = mock.patch.object(writing, 'room')      # the check before a save is not what is tried here
  with unchecked, mock.patch.object(Ledger, 'write', fill_up), pytest.raises(StorageError) as failure:
    live(disk / 'run', STEPS)
  assert failure.value.exit_code == 74
  look = shelf.look(disk / 'run' / 'checkpoints')
  assert list(look.seals) == [3] and not look.damaged and not look.leftovers
  (disk / 'filler').unlink()
  assert difference(straight, live(disk / 'run', STEPS)) == ''


def test_too_little_room_is_seen_before_it_is_used(disk):
  """With the check before each save on, nothing is even begun."""
  fill(disk, 300_000)
  with pytest.raises(StorageError, match=r'a save takes .* MB are') as refusal:
    live(disk / 'run', STEPS)
  assert refusal.value.id == 'store.full' and not list((disk / 'run' / 'checkpoints').iterdir())
