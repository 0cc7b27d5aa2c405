"""What the tests of data share."""

from pathlib import Path

import pytest


@pytest.fixture
def sample() -> Path:
  """The folder of the small text in the repository."""
  return Path(__file__).parent / 'sample'
