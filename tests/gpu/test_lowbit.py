"""Products with few bits on a GPU, by the kernels as they are compiled there, with the tiles that runs take."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import lowbit as door
from kernels.lowbit import lowbit
from model.linear import dense
from model.quantize import dequantize, multiplier, quantize
from tests.gpu.memory import spoil
from tests.kernels import lowbit_grouped_table as grouped
from tests.kernels.lowbit_table import CASES, Case, astray, check, operands, parts, run

pytestmark = pytest.mark.gpu

LARGE = {
  f'{kind}, {rows} rows, {dtype}': Case(kind, rows, inputs, outputs, dtype, None)
  for kind, inputs, outputs in (('nf4', 2048, 1024), ('int4', 1000, 680), ('int8', 1100, 1024))
  for rows in (1, 3, 16, 400) for dtype in ('bfloat16', 'float32')
}


def computed(case, data):
  with jax.default_matmul_precision('highest'):
    return run(case, data, interpret=False)


@pytest.mark.parametrize('name', CASES)
def test_small_shapes(name):
  """With the small tiles that are interpreted elsewhere, and with those of runs."""
  for case in (CASES[name], replace(CASES[name], tiles=None)):
    data = operands(case)
    check(case, data, computed(case, data))


@pytest.mark.parametrize('name', LARGE)
def test_large_shapes(name):
  data = operands(LARGE[name])
  check(LARGE[name], data, computed(LARGE[name], data))


def test_a_scale_that_went_astray_is_seen():
  for name in ('nf4, 1 rows, bfloat16', 'int8, 400 rows, bfloat16'):
    data = operands(LARGE[name])
    with pytest.raises(AssertionError, match='Mismatched'):
      check(LARGE[name], data, computed(LARGE[name], data._replace(w=astray(data.w))))


@pytest.mark.parametrize('kind, apart', [('nf4', 0), ('int4', 3e-7), ('int8', 3e-7)])
def test_numbers_are_those_of_dequantize(kind, apart):
  data = operands(Case(kind, 1, 256, 128))
  codes, steps, levels = parts(data.w)
  with jax.default_matmul_precision('highest'):
    for rows in (jnp.eye(256)[3:4], jnp.eye(256)[60:70], jnp.eye(256)):
      y = jax.jit(lambda x: lowbit(x, codes, steps, levels))(rows)
      np.testing.assert_allclose(y, np.asarray(rows) @ np.asarray(dequantize(data.w)), rtol=apart, atol=0)


@pytest.mark.parametrize('name', ['nf4, 1 rows, bfloat16', 'nf4, 16 rows, bfloat16', 'int4, 400 rows, bfloat16'])
def test_kernels_write_all_of_their_results(name):
  """Into memory that held no numbers; and a second time to the bit."""
  case, data = LARGE[name], operands(LARGE[name])
  spoil([(2**20,)] * 64)
  first, second = computed(case, data), computed(case, data)
  check(case, data, first)
  for value, again in zip(first, second):
    np.testing.assert_array_equal(np.asarray(value, 'float32'), np.asarray(again, 'float32'))


@pytest.mark.parametrize('rows, name', [(2, 'few'), (64, 'many')])
def test_a_model_takes_them_once_they_are_tried(rows, name, monkeypatch):
  """And computes what it computed, also in a loop over layers."""
  stack = quantize(jax.random.normal(jax.random.key(0), (3, 256, 256)) / 16, 'nf4', 1, stacked=1)
  x = jax.random.normal(jax.random.key(1), (rows, 256), jnp.bfloat16)

  def walked(x):
    y, pull = jax.vjp(lambda x: jax.lax.scan(lambda x, w: (dense(x, w, dtype='bfloat16'), None), x, stack)[0], x)
    return y, pull(x)[0]

  told = jax.jit(lambda x: walked(x))(x)
  monkeypatch.setattr(door, 'UNTRIED', frozenset())
  assert multiplier(quantize(jnp.ones((256, 256)), 'nf4', 1), rows, 'bfloat16').name == name
  for value, true in zip(jax.jit(lambda x: walked(x))(x), told):     # another lambda, or the first program would run again
    value, true = (np.asarray(each, np.float64) for each in (value, true))
    np.testing.assert_allclose(value, true, rtol=3e-2, atol=3e-2 * np.abs(true).max())


GROUPED = {
  **grouped.CASES,
  **{f'{name}, large': case._replace(tiles=None) for name, case in grouped.CASES.items()},
  'decoding': grouped.Case('nf4', (0, 1, 0, 0, 2, 0, 0, 1), 2048, (2, 680), 'bfloat16', None),
  'training': grouped.Case('int4', (400, 0, 131, 7, 640, 1, 0, 300), 1024, (2, 512), 'bfloat16', None),
  'training, int8, float32': grouped.Case('int8', (400, 0, 131, 7), 1100, (680,), 'float32', None),
}


@pytest.mark.parametrize('name', GROUPED)
def test_sorted_rows_meet_the_codes_of_their_groups(name):
  """Into memory that held no numbers; and a second time to the bit."""
  case, data = GROUPED[name], grouped.operands(GROUPED[name])
  spoil([(2**20,)] * 64)
  with jax.default_matmul_precision('highest'):
    first, second = (grouped.run(case, data, case.sizes, interpret=False) for _ in range(2))
  grouped.check(case, data, first)
  for value, again in zip(first, second):
    np.testing.assert_array_equal(np.asarray(value, 'float32'), np.asarray(again, 'float32'))
