"""Folders of checkpoints, in memory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.memory import MEMORY
from tests.train.saving.saves import at
from train.checkpoint import Checkpoints


@pytest.fixture
def folder() -> Iterator[Path]:
  with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
    yield Path(folder) / 'checkpoints'


@pytest.fixture
def saved(folder) -> Path:
  """A folder with the steps 1, 2 and 3."""
  with Checkpoints(folder, keep=3) as saves:
    for step in (1, 2, 3):
      saves.save(step, at(step), {'source': step})
      saves.wait()
  return folder
