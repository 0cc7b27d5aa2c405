"""Folders in memory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.memory import MEMORY


@pytest.fixture
def tmp_path() -> Iterator[Path]:
  with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
    yield Path(folder)


@pytest.fixture(scope='module')
def module_path() -> Iterator[Path]:
  """A folder that all tests of a file share."""
  with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
    yield Path(folder)
