"""What tests of rollouts share."""

import pytest

from tests.align.learnt import begun


@pytest.fixture(scope='session')
def world(tmp_path_factory):
  """(parent, store, vocabulary), made."""
  return begun(tmp_path_factory.mktemp('world'))
