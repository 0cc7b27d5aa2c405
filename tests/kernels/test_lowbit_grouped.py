"""Grouped matmul with quantised matrices by the kernel, interpreted: against the dequantised ones; the choice of a kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from kernels import lowbit as door
from kernels.lowbit import Call, choose, describe
from kernels.lowbit_grouped import lowbit_grouped
from kernels.lowbit_triton_grouped import tiling
from tests.kernels.lowbit_grouped_table import CASES, Case, Operands, check, operands, run, truth
from tests.kernels.lowbit_table import SMALL, close, parts


@pytest.mark.parametrize('name', CASES)
def test_each_row_is_multiplied_by_the_codes_of_its_group(name):
  case, data = CASES[name], operands(CASES[name])
  check(case, data, run(case, data, case.sizes, interpret=True))


def test_a_row_in_the_wrong_group_is_seen():
  case = CASES['few rows, empty groups']
  data = operands(case)
  got = run(case, data, (6, 0, 11, 1, 0), interpret=True)
  for value, true in zip(got, truth(data, case.sizes, case.dtype)):
    with pytest.raises(AssertionError, match='Mismatched'):
      close([value], [true], 1e-2)


@pytest.mark.parametrize('sizes', [(5, 0, 12, 1, 0), (0, 0, 64), (1,) * 8, (16, 17, 15), (0, 0, 1)])
def test_tiles_cover_each_row_once_and_there_are_enough(sizes):
  rows, size = sum(sizes), 16
  tiles = tiling(jnp.asarray(sizes, jnp.int32), rows, size)
  group_of = np.repeat(np.arange(len(sizes)), sizes)
  covered = np.zeros(rows, int)
  for group, first, last in zip(*map(np.asarray, tiles)):
    assert last - first <= size and (group_of[first:last] == group).all()
    covered[first:last] += 1
  assert (covered == 1).all() and len(tiles.group_T) <= rows // size + len(sizes)


def test_on_a_mesh_and_under_vmap():
  """Rows over two devices and outputs over four, inside shard_map, whose check interpretation fails; and two examples."""
  mesh = jax.make_mesh((2, 4), ('rows', 'outputs'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  sizes = np.asarray([[3, 7, 0], [4, 0, 6]], np.int32)
  x, g, w = operands(Case('int4', (5, 5, 10), 64, (32,), 'float32'))
  codes, steps, levels = parts(w)

  def local(x, codes, steps, sizes):
    return lowbit_grouped(x, sizes.reshape(-1), codes, steps, levels, dtype='float32', tiles=SMALL, interpret=True)

  cut = P(None, None, None, 'outputs')
  spread = jax.shard_map(local, mesh=mesh, in_specs=(P('rows'), cut, P(None, None, 'outputs'), P('rows')),
                         out_specs=P('rows', 'outputs'), check_vma=False)
  y, pull = jax.jit(lambda x, g: (lambda y, pull: (y, pull(g)[0]))(*jax.vjp(lambda x: spread(x, codes, steps, sizes), x)))(x, g)
  halves = [truth(Operands(x[part], g[part], w), each, 'float32') for part, each in zip((slice(0, 10), slice(10, 20)), sizes)]
  expected = [np.concatenate([half[i] for half in halves]) for i in range(2)]
  close([y, pull], expected, 1e-5)
  mapped = jax.jit(jax.vmap(lambda x, sizes: local(x, codes, steps, sizes)))(x.reshape(2, 10, -1), sizes)
  close([mapped.reshape(20, -1)], expected[:1], 1e-5)


def test_the_choice_and_shapes_that_do_not_fit(monkeypatch):
  call = Call(4096, 64, True, 'bfloat16', 'gpu', 9.0, 8)
  assert str(choose(call)) == 'dequantised (not grouped: it has not run on a card yet)'
  monkeypatch.setattr(door, 'UNTRIED', frozenset())
  assert str(choose(call)) == 'grouped' and choose(call._replace(groups=0)).name == 'many'
  assert describe(5, jax.ShapeDtypeStruct((4, 32, 2, 7), jnp.uint8), 'bfloat16', groups=3).groups == 3
  with pytest.raises(ValueError, match='lowbit of x'):
    codes, steps = jnp.zeros((1, 1, 32, 8), jnp.uint8), jnp.zeros((1, 1, 8))
    lowbit_grouped(jnp.zeros((4, 100)), jnp.asarray([4]), codes, steps, dtype='float32')
