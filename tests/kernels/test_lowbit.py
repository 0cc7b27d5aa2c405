"""Quantised matmul by the Triton kernels, interpreted: against the dequantised matrix in float64; the choice of a kernel."""

import math
from functools import partial
from typing import NamedTuple

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
from tests.kernels.collectives import exchanged
from tests.kernels.lowbit_table import CASES, SMALL, Case, check, check_control, operands, parts, run

ABLE = Call(4096, 64, True, 'bfloat16', 'gpu', 9.0)


@pytest.mark.parametrize('name', CASES)
def test_the_product_and_the_gradient_are_those_of_the_matrix(name):
  data = operands(CASES[name])
  check(CASES[name], data, run(CASES[name], data, interpret=True))


@pytest.mark.parametrize('name', ['few rows', 'many rows, int8'])
def test_a_wrong_scale_is_noticed(name):
  check_control(CASES[name])


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


class Cut(NamedTuple):
  """A product on a mesh: how rows, the gradient's rows and codes lie, and what is exchanged forward and backward."""

  kind: str
  mesh: MeshShape
  outputs: tuple[int, ...]
  rows: P
  codes: P
  forward: set[tuple[str, str]]
  backward: set[tuple[str, str]]


SUMMED, STEPS = {('all-reduce', 'f32')}, ('all-gather', 'f32')
GATHERED, GATHERED8 = {('all-gather', 'u8'), STEPS}, {('all-gather', 's8'), STEPS}
CUTS = {
  'rows alone': Cut('nf4', MeshShape(data=8), (32,), P('data'), P(), set(), set()),
  'outputs': Cut('int4', MeshShape(tensor=8), (64,), P(), P(None, None, 'tensor'), set(), SUMMED),
  'gate and up': Cut('nf4', MeshShape(tensor=8), (2, 32), P(), P(None, None, None, 'tensor'), set(), SUMMED),
  'inputs': Cut('nf4', MeshShape(tensor=8), (32,), P(None, None, 'tensor'), P('tensor'), SUMMED, set()),
  'inputs, int8': Cut('int8', MeshShape(tensor=8), (32,), P(None, None, 'tensor'), P(None, 'tensor'), SUMMED, set()),
  'as rows are': Cut('nf4', MeshShape(fsdp=8), (32,), P('fsdp'), P('fsdp'), GATHERED, GATHERED),
  'as rows are, outputs, int8': Cut('int8', MeshShape(fsdp=8), (32,), P('fsdp'), P(None, None, 'fsdp'), GATHERED8, GATHERED8),
  'up, as a model has it': Cut('nf4', MeshShape(fsdp=2, tensor=4), (2, 16), P('fsdp'), P('fsdp', None, None, 'tensor'),
                               GATHERED, GATHERED | SUMMED),
  'down, as a model has it': Cut('nf4', MeshShape(fsdp=2, tensor=4), (32,), P('fsdp', None, 'tensor'),
                                 P('tensor', None, 'fsdp'), GATHERED | SUMMED, GATHERED),
  'rows that are whole': Cut('nf4', MeshShape(fsdp=8), (32,), P(), P('fsdp'), SUMMED, {('all-gather', 'f32')}),  # the gradient
}


@pytest.mark.parametrize('name', CUTS)
def test_each_device_multiplies_by_its_own_codes(name):
  """The numbers of one device; what is gathered is codes and steps, and what is summed is summed in float32."""
  cut = CUTS[name]
  case = Case(cut.kind, 16, 512, math.prod(cut.outputs), 'bfloat16')
  data = operands(case)
  mesh = cut.mesh.build()
  codes, steps, levels = (each if isinstance(each, tuple | None) else each.reshape(*each.shape[:-1], *cut.outputs)
                          for each in parts(data.w))
  rows = cut.rows[0] if len(cut.rows) else None
  lay = {'x': cut.rows, 'codes': cut.codes, 'steps': P(*cut.codes[:1], *cut.codes[2:]),
         'g': P(rows, None, *(None if axis == rows else axis for axis in cut.codes[2:]))}
  lay = {each: NamedSharding(mesh, where) for each, where in lay.items()}
  arrays = {'x': data.x_MI.reshape(8, 2, -1), 'g': data.g_MO.reshape(8, 2, *cut.outputs), 'codes': codes, 'steps': steps}
  arrays = {each: jax.device_put(array, lay[each]) for each, array in arrays.items()}

  def product(x, codes, steps):
    return lowbit(x, codes, steps, levels, tiles=SMALL, interpret=True)

  def pull(g, codes, steps):
    return jax.vjp(lambda x: product(x, codes, steps), jnp.zeros((8, 2, 512), g.dtype))[1](g)[0]

  found = []
  with jax.set_mesh(mesh):
    for run, given, result, told in ((product, 'x', 'g', cut.forward), (pull, 'g', 'x', cut.backward)):
      each = arrays[given], arrays['codes'], arrays['steps']
      made = jax.jit(run, out_shardings=lay[result]).lower(*each).compile()
      assert {(each.kind, each.dtype) for each in exchanged(made.as_text())} == told
      found.append(made(*each).reshape(16, -1))
  check(case, data, tuple(found))


def both(x, g, codes, steps, levels):
  y, pull = jax.vjp(lambda x: lowbit(x, codes, steps, levels, tiles=SMALL, interpret=True), x)
  return y, pull(g)[0]


def test_blocks_that_a_mesh_cannot_share_out_stay_whole():
  """Of five blocks on four devices, and of a last block cut short: the numbers are right, wherever inputs lie."""
  mesh = MeshShape(data=2, tensor=4).build()
  for inputs, where in ((320, P()), (500, P('tensor'))):
    case = Case('int4', 16, inputs, 32)
    data = operands(case)
    codes, steps, levels = parts(data.w)
    x = jax.device_put(data.x_MI, NamedSharding(mesh, P('data', 'tensor')))
    codes, steps = (jax.device_put(each, NamedSharding(mesh, where)) for each in (codes, steps))
    with jax.set_mesh(mesh):
      check(case, data, jax.jit(both, static_argnums=4)(x, data.g_MO, codes, steps, levels))


def test_the_choice_and_its_reasons(monkeypatch):
  assert choose(ABLE).refused['many'] == 'it has not run on a card yet'
  monkeypatch.setattr(door, 'UNTRIED', frozenset())
  assert str(choose(ABLE)) == 'many' and choose(ABLE._replace(rows=16)).name == 'few'
  refused = {'on cpu': {'platform': 'cpu'}, '8.0': {'capability': 7.5}, 'float16': {'dtype': 'float16'},
             'not of 20': {'block': 20}, 'not 24': {'block': 24, 'packed': False},
             'no rows': {'rows': 0}}
  for why, change in refused.items():
    choice = choose(ABLE._replace(**change))
    assert choice.name == 'dequantised' and why in str(choice), (why, str(choice))
  call = describe(5, jax.ShapeDtypeStruct((4, 32, 7), jnp.uint8), 'bfloat16')
  assert call[:4] == (5, 64, True, 'bfloat16') and call.platform == jax.default_backend()


def test_small_grids_use_split_k():
  assert Sizes(1, 1024, 8192, 32, Tile(1, 64, 128, programs=264)).shares == 5      # 64 tiles of outputs, 5 shares of 16 tiles
  assert Sizes(1, 128, 128, 4, Tile(1, 64, 128, programs=264)).shares == 2         # no more than there are tiles
  assert Sizes(4096, 1024, 8192, 32, Tile(128, 32, 128)).shares == 1


@pytest.mark.parametrize('x, codes, steps', [((4, 100), (3, 32, 8), (3, 8)), ((4, 64), (1, 16, 8), (1, 8)),
                                             ((4, 64), (1, 32, 8), (2, 8)), ((4, 64), (1, 32, 2, 8), (1, 8)),
                                             ((4, 64), (1, 32), (1,))])
def test_shapes_that_do_not_fit_are_named(x, codes, steps):
  with pytest.raises(ValueError, match='lowbit of x'):
    lowbit(jnp.zeros(x), jnp.zeros(codes, jnp.uint8), jnp.zeros(steps))
