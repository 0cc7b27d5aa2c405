"""Quantised matmul by the TPU kernels, interpreted: against the dequantised matrix in float64; the choice of a kernel."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as plt

from kernels import lowbit as door
from kernels.choice import Choice
from kernels.lowbit import Call, choose, lowbit
from kernels.lowbit_tpu import TILES, Plan, Sizes, Tile, Tiles, backward, forward
from model import quantize as module
from model.linear import dense
from model.quantize import dequantize, quantize
from model.sharding import MeshShape
from tests.kernels.lowbit_table import CASES, Case, check, check_control, operands, parts, run

SMALL = Tiles(Tile(16, 32, 2, 32), Tile(16, 64, 2, 32))
ABLE = Call(4096, 64, True, 'bfloat16', 'tpu', 5.0)
LARGE = {
  'nf4, a block cut short': Case('nf4', 20, 1300, 300, 'bfloat16', None),
  'int8, whole': Case('int8', 16, 512, 256, 'float32', None),
}


@pytest.mark.parametrize('name', CASES)
def test_the_product_and_the_gradient_are_those_of_the_matrix(name):
  """Beyond the end of arrays there is NaN here, and for codes the smallest number."""
  case = replace(CASES[name], tiles=SMALL)
  data = operands(case)
  check(case, data, run(case, data, interpret=True, platform='tpu'))


@pytest.mark.parametrize('name', LARGE)
def test_so_they_are_with_the_tiles_that_runs_take(name):
  data = operands(LARGE[name])
  check(LARGE[name], data, run(LARGE[name], data, interpret=True, platform='tpu'))


@pytest.mark.parametrize('name', ['few rows', 'many rows, int8'])
def test_a_wrong_scale_is_noticed(name):
  check_control(replace(CASES[name], tiles=SMALL), platform='tpu')


def test_memory_that_nobody_wrote_is_never_read():
  """By the interpreter of TPUs, where a program's own memory begins as NaN and reads past an array are refused."""
  data = operands(CASES['few rows'])
  codes, steps, levels = parts(data.w)
  matrix = codes.reshape(-1, codes.shape[-1]), steps, jnp.asarray(levels)
  plan = Plan(SMALL, plt.InterpretParams(uninitialized_memory='nan'))
  check(CASES['few rows'], data, tuple(kernel(plan, 'bfloat16', rows, *matrix)
                                       for kernel, rows in ((forward, data.x_MI), (backward, data.g_MO))))


@pytest.mark.parametrize('kind, apart', [('nf4', 0), ('int4', 2e-7), ('int8', 2e-7)])
def test_numbers_are_those_of_dequantize(kind, apart):
  data = operands(Case(kind, 1, 128, 32))
  codes, steps, levels = parts(data.w)
  call = partial(lowbit, platform='tpu', tiles=SMALL, interpret=True)
  w = np.asarray(dequantize(data.w))
  np.testing.assert_allclose(jax.jit(lambda x: call(x, codes, steps, levels))(jnp.eye(128)), w, rtol=apart, atol=0)
  dx = jax.jit(lambda g: jax.vjp(lambda x: call(x, codes, steps, levels), jnp.zeros((32, 128)))[1](g)[0])(jnp.eye(32))
  np.testing.assert_allclose(dx, w.T, rtol=apart, atol=0)


@pytest.mark.parametrize('kind', ['nf4', 'int8'])
def test_a_model_takes_them_in_a_loop_over_layers_and_for_each_example(kind, monkeypatch):
  stack = quantize(jax.random.normal(jax.random.key(0), (3, 128, 128)) / 11, kind, 1, stacked=1)
  x, g = jax.random.normal(jax.random.key(1), (2, 2, 5, 128))

  def walked(x, g):
    y, pull = jax.vjp(lambda x: jax.lax.scan(lambda x, w: (jnp.tanh(dense(x, w)), None), x, stack)[0], x)
    return y, pull(g)[0]

  told = jax.jit(lambda x, g: walked(x, g))(x, g)
  monkeypatch.setattr(module, 'choose', lambda call: Choice('tpu', {}))
  monkeypatch.setattr(module, 'lowbit', partial(lowbit, platform='tpu', interpret=True, tiles=SMALL))
  for run_ in walked, jax.vmap(walked):
    for value, true in zip(jax.jit(lambda x, g, run_=run_: run_(x, g))(x, g), told):
      np.testing.assert_allclose(value, true, rtol=1e-4, atol=1e-4 * float(np.abs(true).max()))


@pytest.mark.parametrize('kind', ['nf4', 'int4', 'int8'])
@pytest.mark.parametrize('rows', [5, 700])
def test_lowers_for_the_chip(kind, rows):
  """With its own tiles, for a chip that is not here, inputs that end within a block and outputs within a register."""
  codes = jax.ShapeDtypeStruct(*(((1, 1000, 680), 'int8') if kind == 'int8' else ((16, 32, 680), 'uint8')))
  steps, x, g = (jax.ShapeDtypeStruct(shape, 'float32') for shape in ((codes.shape[0], 680), (rows, 1000), (rows, 680)))

  def both(x, g, codes, steps):
    y, pull = jax.vjp(lambda x: lowbit(x, codes, steps, module.NF4 if kind == 'nf4' else None, dtype='bfloat16',
                                       platform='tpu'), x)
    return y, pull(g.astype(y.dtype))[0]

  text = jax.jit(both).trace(x, g, codes, steps).lower(lowering_platforms=('tpu',)).as_text()
  assert text.count('custom_call @tpu_custom_call') == 2


def test_tiles_are_no_larger_than_what_they_cover():
  def sizes(rows, depth, outputs):
    return Sizes.of(Plan(), jnp.zeros((rows, 1), jnp.bfloat16), jax.ShapeDtypeStruct((depth, outputs), jnp.uint8))
  assert sizes(5, 160, 40).tile == Tile(16, 160, 1, 128) and sizes(5, 160, 40).grid == (1, 1, 1)
  assert sizes(17, 1024, 8192).tile == TILES[2].many._replace(rows=32) and sizes(17, 1024, 8192).grid == (1, 2, 8)
  assert sizes(700, 700, 8192).tile == TILES[2].many and sizes(700, 700, 8192).grid == (2, 2, 8)


def test_the_choice_and_its_reasons(monkeypatch):
  assert choose(ABLE).refused['tpu'] == 'it has not run on a card yet'
  monkeypatch.setattr(door, 'UNTRIED', frozenset())
  assert str(choose(ABLE)) == 'tpu' and choose(ABLE._replace(rows=1)).name == 'tpu'
  assert choose(ABLE._replace(capability=4.0, packed=False, block=4096)).name == 'tpu'
  refused = {'float16': {'dtype': 'float16'}, 'not v4': {'capability': 4.0}, 'over 8 devices': {'devices': 8},
             'not of 20': {'block': 20}, 'no rows': {'rows': 0}, 'NVIDIA GPUs, not on tpu': {'groups': 8}}
  for why, change in refused.items():
    choice = choose(ABLE._replace(**change))
    assert choice.name == 'dequantised' and why in str(choice), (why, str(choice))
  with jax.set_mesh(MeshShape(data=8).build()):
    assert door.describe(5, jax.ShapeDtypeStruct((4, 32, 7), jnp.uint8), 'bfloat16').devices == 8


@pytest.mark.parametrize('kind, generation', [('TPU v4', 4), ('TPU v5 lite', 5), ('TPU v6 lite', 6), ('TPU7x', 7), ('cpu', 0)])
def test_generations_of_tpus(kind, generation):
  class Device:
    device_kind = kind
  assert door._capability(Device()) == generation
