"""Files that change behind our back, and the law of all that is verified when it is opened."""

from collections.abc import Callable
from pathlib import Path

import pytest

from model.errors import DataError


def flip(path: Path, at: int = -1) -> None:
  """One bit of a file is not what it was."""
  data = bytearray(path.read_bytes())
  data[at] ^= 1
  path.write_bytes(data)


def check_noticed(path: Path, opened: Callable[[], object]) -> None:
  """Fails unless a file with a flipped bit, and one that is gone, are refused by name. Leaves it as it was."""
  opened()
  data = path.read_bytes()
  flip(path)
  with pytest.raises(DataError, match=r'data\.changed'):
    opened()
  path.unlink()
  with pytest.raises(DataError, match=r'data\.damaged'):
    opened()
  path.write_bytes(data)
