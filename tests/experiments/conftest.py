"""Toys to launch, which are made at once."""

import pytest

from tests.experiments.launching import TOYS


@pytest.fixture(autouse=True)
def toys(monkeypatch):
  monkeypatch.syspath_prepend(str(TOYS))


@pytest.fixture
def bread(tmp_path):
  """An experiment file whose classes live in a room."""
  path = tmp_path / 'bread.py'
  path.write_text('from experiments.bakery import get_config\n')
  return path
