"""Products with few bits by the kernels, interpreted: the matrix worked out, in float64, and what the door says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import lowbit as door
from kernels.lowbit import Call, choose, describe, lowbit
from kernels.lowbit_triton_blocks import Sizes, Tile
from model.quantize import dequantize, quantize
from model.sharding import MeshShape
from tests.kernels.lowbit_table import CASES, SMALL, Case, astray, check, operands, parts, run

ABLE = Call(4096, 64, True, 'bfloat16', False, 'gpu', 9.0)


@pytest.mark.parametrize('name', CASES)
def test_the_product_and_the_gradient_are_those_of_the_matrix(name):
  data = operands(CASES[name])
  check(CASES[name], data, run(CASES[name], data, interpret=True))


@pytest.mark.parametrize('name', ['few rows', 'many rows, int8'])
def test_a_scale_that_went_astray_is_seen(name):
  data = operands(CASES[name])
  got = run(CASES[name], data._replace(w=astray(data.w)), interpret=True)
  for which in (0, 1):
    with pytest.raises(AssertionError, match='Mismatched'):
      check(CASES[name], data, tuple(value if i == which else true for i, (value, true) in enumerate(zip(got, exact(data)))))


def exact(data):
  x, g, w = (np.asarray(each, np.float64) for each in (data.x_MI, data.g_MO, dequantize(data.w)))
  return tuple(jnp.asarray(each, data.x_MI.dtype) for each in (x @ w, g @ w.T))


@pytest.mark.parametrize('kind, apart', [('nf4', 0), ('int4', 2e-7), ('int8', 2e-7)])
def test_numbers_are_those_of_dequantize(kind, apart):
  """Times one: nf4 to the bit, and the other two, whose levels are not divided before they are scaled, to the last but one."""
  data = operands(Case(kind, 1, 128, 32))
  codes, steps, levels = parts(data.w)
  call = partial(lowbit, tiles=SMALL, interpret=True)
  w = np.asarray(dequantize(data.w))
  for rows in (jnp.eye(128)[3:4], jnp.eye(128)[60:70], jnp.eye(128)):
    y = jax.jit(lambda x: call(x, codes, steps, levels))(rows)
    np.testing.assert_allclose(y, np.asarray(rows) @ w, rtol=apart, atol=0)
  transposed = jax.jit(lambda g: jax.vjp(lambda x: call(x, codes, steps, levels), jnp.zeros((32, 128)))[1](g)[0])
  np.testing.assert_allclose(transposed(jnp.eye(32)), w.T, rtol=apart, atol=0)


def test_maps_over_examples_and_over_matrices():
  data = operands(Case('nf4', 12, 128, 32))
  codes, steps, levels = parts(data.w)
  call = partial(lowbit, levels=levels, tiles=SMALL, interpret=True)
  x = data.x_MI.reshape(3, 4, 128)
  together = jax.jit(jax.vmap(lambda x, g: jax.vjp(lambda x: call(x, codes, steps), x)[1](g)[0]))
  np.testing.assert_allclose(together(x, data.g_MO.reshape(3, 4, 32)), (data.g_MO @ dequantize(data.w).T).reshape(x.shape),
                             rtol=1e-4, atol=1e-4)
  stack = quantize(jax.random.normal(jax.random.key(0), (3, 128, 32)), 'nf4', 1, stacked=1)
  each = jax.jit(jax.vmap(lambda x, codes, steps: call(x, codes, steps)))(x, *parts(stack)[:2])
  np.testing.assert_allclose(each, jnp.einsum('emi,eio->emo', x, dequantize(stack)), rtol=1e-4, atol=1e-4)


def test_rows_stay_on_their_devices():
  """Rows over eight of them, the codes whole on each: nothing is gathered, and the numbers are those of one device."""
  case = Case('nf4', 40, 128, 32)
  data = operands(case)
  codes, steps, levels = parts(data.w)
  mesh = MeshShape(data=8).build()
  x, g = (jax.device_put(each, NamedSharding(mesh, P('data'))) for each in data[:2])
  whole = [jax.device_put(each, NamedSharding(mesh, P())) for each in (codes, steps)]

  def both(x, g, codes, steps):
    y, pull = jax.vjp(lambda x: lowbit(x, codes, steps, levels, tiles=SMALL, interpret=True), x)
    return y, pull(g)[0]

  with jax.set_mesh(mesh):
    made = jax.jit(both).lower(x, g, *whole).compile()
    got = made(x, g, *whole)
  assert not any(word in made.as_text() for word in ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute'))
  assert all(each.sharding.shard_shape(each.shape)[0] == 5 for each in got)
  check(case, data, got)


def test_the_door_and_its_reasons(monkeypatch):
  assert choose(ABLE).refused['many'] == 'it has not run on a card yet'
  monkeypatch.setattr(door, 'UNTRIED', frozenset())
  assert str(choose(ABLE)) == 'many' and choose(ABLE._replace(rows=16)).name == 'few'
  refused = {'on cpu': {'platform': 'cpu'}, '8.0': {'capability': 7.5}, 'float16': {'dtype': 'float16'},
             'not of 20': {'block': 20}, 'not 24': {'block': 24, 'packed': False}, 'gather': {'cut': True},
             'no rows': {'rows': 0}}
  for why, change in refused.items():
    choice = choose(ABLE._replace(**change))
    assert choice.name == 'dequantised' and why in str(choice), (why, str(choice))
  call = describe(5, jax.ShapeDtypeStruct((4, 32, 7), jnp.uint8), 'bfloat16', cut=False)
  assert call[:5] == (5, 64, True, 'bfloat16', False) and call.platform == jax.default_backend()


def test_programs_share_sums_where_there_are_few():
  assert Sizes(1, 1024, 8192, 32, Tile(1, 64, 128, programs=264)).shares == 5      # 64 tiles of outputs, 5 shares of 16 tiles
  assert Sizes(1, 128, 128, 4, Tile(1, 64, 128, programs=264)).shares == 2         # no more than there are tiles
  assert Sizes(4096, 1024, 8192, 32, Tile(128, 32, 128)).shares == 1


@pytest.mark.parametrize('x, codes, steps', [((4, 100), (3, 32, 8), (3, 8)), ((4, 64), (1, 16, 8), (1, 8)),
                                             ((4, 64), (1, 32, 8), (2, 8)), ((4, 2, 64), (1, 32, 8), (1, 8))])
def test_shapes_that_do_not_fit_are_named(x, codes, steps):
  with pytest.raises(ValueError, match='lowbit of x'):
    lowbit(jnp.zeros(x), jnp.zeros(codes, jnp.uint8), jnp.zeros(steps))
