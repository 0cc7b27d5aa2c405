"""Folders in memory where there is such a place: these tests force files to the disk thousands of times."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None


@pytest.fixture
def tmp_path() -> Iterator[Path]:
  with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
    yield Path(folder)


@pytest.fixture(scope='module')
def module_path() -> Iterator[Path]:
  """A folder that all tests of a file share."""
  with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
    yield Path(folder)
