"""The test cases of quantised matmul, in interpret mode and on GPUs, with the expected results in float64."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.lowbit import lowbit
from kernels.lowbit_triton_blocks import Tile, Tiles
from model.levels import NF4, WHOLE, Doubled
from model.quantize import Quantized, dequantize, quantize

SMALL = Tiles(Tile(1, 64, 32, programs=3), Tile(16, 64, 32, programs=5), Tile(32, 32, 32), Tile(32, 64, 32))
HALF = Tiles(*(each._replace(depth=16) for each in SMALL))      # tiles within a block
TOLERANCE = {'float32': 1e-5, 'bfloat16': 1e-2}


@dataclass(frozen=True)
class Case:
  """x[rows, inputs] times a matrix [inputs, outputs]."""

  kind: str
  rows: int
  inputs: int
  outputs: int
  dtype: str = 'float32'
  tiles: Any = SMALL                  # Tiles of the kernels that run; None: their own


class Operands(NamedTuple):
  """Of a case: x, g, and the matrix."""

  x_MI: jax.Array
  g_MO: jax.Array
  w: Quantized


CASES = {
  'one row': Case('nf4', 1, 128, 64),
  'one row, odd': Case('int8', 1, 101, 43, 'bfloat16'),
  'three rows, a block cut short': Case('int4', 3, 200, 72),
  'few rows': Case('nf4', 5, 320, 72, 'bfloat16'),
  'few rows, whole': Case('int8', 16, 192, 64),
  'many rows, odd': Case('nf4', 37, 321, 71),
  'many rows, even levels': Case('int4', 33, 130, 40, 'bfloat16'),
  'many rows, int8': Case('int8', 37, 150, 40, 'bfloat16'),
  'tiles within a block': Case('nf4', 33, 64, 32, 'float32', HALF),
}


def operands(case: Case) -> Operands:
  """Random numbers with very different scales, so that a wrong scale is noticed."""
  rng = np.random.default_rng(0)
  w = rng.normal(size=(case.inputs, case.outputs)) * np.exp(rng.normal(size=(-(-case.inputs // 64), case.outputs))
                                                            .repeat(64, 0)[:case.inputs])
  x, g = rng.normal(size=(case.rows, case.inputs)), rng.normal(size=(case.rows, case.outputs))
  return Operands(jnp.asarray(x, case.dtype), jnp.asarray(g, case.dtype), quantize(jnp.asarray(w, jnp.float32), case.kind, 1))


def parts(w: Quantized):
  """(codes, steps, levels), as `lowbit` takes them."""
  scales = w.scales.value if isinstance(w.scales, Doubled) else w.scales
  return w.codes, scales / WHOLE[w.kind], NF4 if w.kind == 'nf4' else None


def run(case: Case, data: Operands, interpret: Any, platform: str | None = None) -> tuple[jax.Array, jax.Array]:
  """y and dx by the kernels of a platform."""
  @jax.jit
  def both(x, g, w):
    codes, steps, levels = parts(w)
    y, pull = jax.vjp(partial(lowbit, codes=codes, steps_NO=steps, levels=levels, platform=platform, tiles=case.tiles,
                              interpret=interpret), x)
    return y, pull(g)[0]

  return both(*data)


def truth(data: Operands) -> tuple[np.ndarray, np.ndarray]:
  """The product and the gradient in float64, by the dequantised matrix."""
  x, g, w = (np.asarray(each, np.float64) for each in (data.x_MI, data.g_MO, dequantize(data.w)))
  return x @ w, g @ w.T


def close(got, expected, tolerance: float) -> None:
  for value, true in zip(got, expected, strict=True):
    np.testing.assert_allclose(np.asarray(value, np.float64).reshape(true.shape), true, rtol=tolerance,
                               atol=tolerance * np.abs(true).max())


def check(case: Case, data: Operands, got: tuple[jax.Array, jax.Array]) -> None:
  """Fails unless y and dx are close to those in float64."""
  expected = truth(data)
  assert all(value.dtype == case.dtype and value.shape == true.shape for value, true in zip(got, expected))
  close(got, expected, TOLERANCE[case.dtype])


def astray(w: Quantized) -> Quantized:
  """The matrix with the scales of its last two blocks exchanged, or of two outputs where one block holds all."""
  axis = 1 if w.kind == 'int8' else 0
  scales = parts(w)[1] * WHOLE[w.kind]
  order = np.arange(scales.shape[axis])
  order[-2:] = order[-2:][::-1]
  return replace(w, scales=jnp.take(scales, order, axis))


def check_control(case: Case, platform: str | None = None) -> None:
  """Fails unless swapped scales change the product and the gradient noticeably (a negative control)."""
  data = operands(case)
  right = tuple(jnp.asarray(each, case.dtype) for each in truth(data))
  wrong = run(case, data._replace(w=astray(data.w)), interpret=True, platform=platform)
  check(case, data, right)
  for got in (wrong[0], right[1]), (right[0], wrong[1]):
    with pytest.raises(AssertionError, match='Mismatched'):
      check(case, data, got)
