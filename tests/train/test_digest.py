"""Laws of the digest: it is what its definition says, knows no layout, and sees every flipped bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from train.saving.digest import CHUNK, MODULUS, digest, digests

LAYOUTS = [PartitionSpec(), PartitionSpec('x'), PartitionSpec(None, 'x'), PartitionSpec('y', 'x'),
           PartitionSpec(('x', 'y')), PartitionSpec('x', None, 'y')]


def by_definition(array: np.ndarray) -> int:
  size = array.dtype.itemsize
  words = np.ascontiguousarray(array).reshape(-1).view({1: np.uint8, 2: np.uint16}.get(size, np.uint32))
  return sum(int(word) * (2 * place + 1) for place, word in enumerate(words)) % MODULUS


def some(shape, dtype, seed=0):
  return np.asarray(np.random.default_rng(seed).normal(size=shape) * 100).astype(dtype)


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16, np.int32, np.int8, bool, np.float64])
@pytest.mark.parametrize('shape', [(), (7,), (8, 16), (4, 8, 24), (8, 2, 3, 4), (0, 3)])
def test_it_is_what_its_definition_says(shape, dtype):
  array = some(shape, dtype)
  assert digest(array) == by_definition(array)


@pytest.mark.parametrize('grid', [(1, 1), (2, 1), (1, 4), (2, 4), (8, 1)])
@pytest.mark.parametrize('shape', [(8,), (16, 8), (8, 16, 8)])
def test_it_knows_no_layout(shape, grid):
  array = some(shape, np.float32)
  mesh = jax.make_mesh(grid, ('x', 'y'), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:grid[0] * grid[1]])
  for layout in LAYOUTS:
    if len(layout) <= len(shape):
      placed = jax.device_put(array, NamedSharding(mesh, layout))
      assert digest(placed) == by_definition(array), layout


def test_it_sees_every_single_bit():
  array = some((3, 5), np.float32)
  before = digest(array)
  for place in range(array.size):
    for bit in range(32):
      flipped = array.copy()
      flipped.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
      assert digest(flipped) != before


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16, np.int8])
def test_it_sees_bits_of_arrays_larger_than_a_chunk(dtype):
  rng = np.random.default_rng(1)
  array = some((3, CHUNK + 17), dtype)
  before = digest(array)
  for _ in range(100):
    flipped = array.copy()
    flipped.reshape(-1).view(np.uint8)[rng.integers(array.nbytes)] ^= np.uint8(1 << rng.integers(8))
    assert digest(flipped) != before


def test_it_sees_exchanged_elements():
  array = some((64,), np.float32)
  assert digest(array) != digest(array[::-1])


def test_many_leaves_at_once():
  leaves = {str(seed): jnp.asarray(some((9, 4), np.float32, seed)) for seed in range(20)}
  assert digests(leaves) == {name: digest(np.asarray(leaf)) for name, leaf in leaves.items()}
