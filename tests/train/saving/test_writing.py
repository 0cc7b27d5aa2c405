"""What the threads of one save see."""

import sys
import threading

import jax
import jax.numpy as jnp
import pytest

from tests.train.saving.saves import layout
from train.saving import writing
from train.saving.leaves import describe


@pytest.fixture
def impatient():
  """Threads that take turns as often as they can."""
  interval = sys.getswitchinterval()
  sys.setswitchinterval(1e-6)
  yield
  sys.setswitchinterval(interval)


def test_each_thread_of_a_save_sees_each_shard(folder, monkeypatch, impatient):
  meet, seen = threading.Barrier(2), []

  def look(arrays):
    meet.wait()
    seen.extend(len(array.addressable_shards) for array in arrays.values())
    return {}

  def write(path, arrays):
    path.mkdir(parents=True)
    look(arrays)

  monkeypatch.setattr(writing, 'digests', look)
  monkeypatch.setattr(writing.arrays, 'write', write)
  replicated = jax.device_put(jnp.ones(16), layout(8, 'w').step)
  for step in range(20):
    arrays = {str(i): jnp.copy(replicated) for i in range(8)}
    writing.write(folder, writing.Save(step, arrays, {name: describe(leaf) for name, leaf in arrays.items()}, '{}'))
  assert set(seen) == {8}
