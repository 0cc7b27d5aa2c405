"""Rows cut along their positions over eight pretended devices: the numbers of the table's truth, and only neighbours talk."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import attention_ring, attention_tpu, attention_triton
from kernels.attention_fused import Plan
from kernels.attention_ring import ring
from kernels.attention_triton import Tile, Tiles
from kernels.ranges import Kind, Ranges, causal_ranges, packed_ranges, prefix_ranges
from tests.kernels.attention_table import Case, close, gradients, operands, truth

L = 32
SEGMENTS = jnp.asarray([[1] * 13 + [2] * 19, [1] * 3 + [0] * 9 + [2] * 20])
SCATTERED = np.sort(np.random.default_rng(7).integers(-3, L + 3, (2, 2, L)), axis=0)
CASES = {
  'causal': Case(causal_ranges(2, L), keys=L, heads=4, head_size=16, scale=0.3),
  'packed, cap': Case(packed_ranges(SEGMENTS), keys=L, heads=4, head_size=16, softcap=2.0),
  'window': Case(causal_ranges(2, L, 5), keys=L, heads=4, head_size=16),
  'prefix': Case(prefix_ranges(jnp.asarray([20, 3]), L), keys=L, heads=4, head_size=16),
  'scattered': Case(Ranges(*jnp.asarray(SCATTERED, jnp.int32), Kind()), keys=L, heads=4, head_size=16),
}
ALL = {'data': 2, 'seq': 2, 'tensor': 2}, P('data', 'seq', 'tensor')
SPECS = {'eight along the row': ({'seq': 8}, P(None, 'seq')), 'all three axes': ALL}


def laid(axes, spec, case):
  """A mesh, and the case's operands on it."""
  mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))
  return mesh, [jax.device_put(x, NamedSharding(mesh, spec)) for x in operands(case)]


@pytest.mark.parametrize('where', SPECS)
@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients(name, where):
  case, (axes, spec) = CASES[name], SPECS[where]
  mesh, data = laid(axes, spec, case)
  with jax.set_mesh(mesh):
    compiled = jax.jit(partial(gradients, case, partial(ring, spec=spec))).lower(*data).compile()
    got = compiled(*data)
  for value, expected in zip(got, truth(case, *operands(case))):
    assert value.sharding.is_equivalent_to(NamedSharding(mesh, spec), 4)
    close(value, expected, 2e-5)
  text = compiled.as_text()
  assert 'collective-permute' in text and not any(word in text for word in ('all-gather', 'all-to-all', 'all-reduce'))


KERNELS = {
  'triton': (attention_triton.KERNELS, Tiles(Tile(16, 16), Tile(16, 16), Tile(16, 16))),
  'tpu': (attention_tpu.KERNELS, attention_tpu.Tile(8, 8)),
}


@pytest.mark.parametrize('form', KERNELS)
def test_with_kernels(form, monkeypatch):
  """Interpreted, on two devices of a row: those kernels take shifted ranges and a log-sum-exp from elsewhere."""
  case, (axes, spec) = CASES['packed, cap'], ALL
  monkeypatch.setattr(attention_ring, '_kernels', lambda q, k: KERNELS[form])
  monkeypatch.setattr(attention_ring, 'Plan', lambda *fields, interpret: Plan(*fields, interpret=True))
  mesh, data = laid(axes, spec, case)
  with jax.set_mesh(mesh):
    got = jax.jit(partial(gradients, case, partial(ring, spec=spec)))(*data)
  for value, expected in zip(got, truth(case, *operands(case))):
    close(value, expected, 2e-5)


def test_ranges_counted_from_elsewhere_are_noticed(monkeypatch):
  """The control: the last key of each shard is lost."""
  monkeypatch.setattr(attention_ring, 'within', lambda first, last, keys: (first, jnp.minimum(last, keys - 1)))
  case, (axes, spec) = CASES['causal'], ALL
  mesh, data = laid(axes, spec, case)
  with jax.set_mesh(mesh):
    got = jax.jit(partial(gradients, case, partial(ring, spec=spec)))(*data)
  for value, expected in zip(got, truth(case, *operands(case))):
    with pytest.raises(AssertionError):
      close(value, expected, 2e-5)


def test_positions_must_divide():
  case, (axes, spec) = CASES['causal'], SPECS['eight along the row']
  mesh, (q, k, v, _) = laid(axes, spec, case)
  with jax.set_mesh(mesh), pytest.raises(ValueError, match='ring of 8 devices and 30 key positions: take a multiple of 8'):
    ring(q, k[:, :30], v[:, :30], case.ranges, spec=spec, scale=1.0)
