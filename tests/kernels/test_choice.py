"""The number of devices over which the compiler partitions a call."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from kernels.choice import devices


@pytest.mark.parametrize(('by_hand', 'expected'), [((), 8), (('a',), 4), (('a', 'b'), 1)])
def test_manual_axes_do_not_count(by_hand, expected):
  found = []

  def note(x):
    found.append(devices())
    return x

  with jax.set_mesh(jax.make_mesh((2, 4), ('a', 'b'), axis_types=(AxisType.Auto,) * 2)):
    cut = jax.shard_map(note, in_specs=P('a'), out_specs=P('a'), axis_names=set(by_hand)) if by_hand else note
    jax.jit(cut)(jnp.ones(8))
  assert set(found) == {expected}


def test_without_a_mesh_it_is_one():
  assert devices() == 1
