"""The test cases of grouped matmul with quantised matrices, in interpret mode and on GPUs."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.lowbit_grouped import lowbit_grouped
from kernels.lowbit_triton_blocks import Tiles
from model.quantize import Quantized, dequantize, quantize
from tests.kernels.lowbit_table import HALF, SMALL, TOLERANCE, close, parts


class Case(NamedTuple):
  """Rows of each group, and a matrix [inputs, *outputs] for each."""

  kind: str
  sizes: tuple[int, ...]
  inputs: int
  outputs: tuple[int, ...]
  dtype: str
  tiles: Tiles | None = SMALL


class Operands(NamedTuple):
  """Of a case: x, g, and the matrices."""

  x_RI: jax.Array
  g_RO: jax.Array
  w: Quantized


CASES = {
  'few rows, empty groups': Case('nf4', (5, 0, 12, 1, 0), 128, (32,), 'float32'),
  'one row': Case('int4', (0, 1, 0), 100, (40,), 'bfloat16'),
  'many rows, int8, odd': Case('int8', (50, 3, 0, 60), 101, (2, 20), 'bfloat16'),
  'tiles within a block': Case('nf4', (33, 40), 128, (32,), 'float32', HALF),
}


def operands(case: Case) -> Operands:
  """Random numbers with very different scales."""
  rng, outputs = np.random.default_rng(0), case.outputs
  w = rng.normal(size=(len(case.sizes), case.inputs, *outputs)) * np.exp(rng.normal(size=(len(case.sizes), 1, *outputs)))
  x, g = rng.normal(size=(sum(case.sizes), case.inputs)), rng.normal(size=(sum(case.sizes), *outputs))
  return Operands(jnp.asarray(x, case.dtype), jnp.asarray(g, jnp.float32),
                  quantize(jnp.asarray(w, jnp.float32), case.kind, 1, stacked=1))


def run(case: Case, data: Operands, sizes: tuple[int, ...], interpret: bool) -> tuple[jax.Array, jax.Array]:
  """y and dx by the kernel, of groups of these sizes."""
  return _both(case._replace(sizes=()), interpret, *data, jnp.asarray(sizes, jnp.int32))


@partial(jax.jit, static_argnums=(0, 1))
def _both(case, interpret, x, g, w, sizes):
  codes, steps, levels = parts(w)
  y, pull = jax.vjp(lambda x: lowbit_grouped(x, sizes, codes, steps, levels, dtype=case.dtype, tiles=case.tiles,
                                             interpret=interpret), x)
  return y, pull(g)[0]


def truth(data: Operands, sizes: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
  """The product and the gradient in float64, of operands as they are rounded."""
  x, g, w = (np.asarray(each, np.float64) for each in (data.x_RI, data.g_RO.astype(dtype), dequantize(data.w)))
  w = w.reshape(*w.shape[:2], -1)[np.repeat(np.arange(len(sizes)), sizes)]
  return np.einsum('ri,rio->ro', x, w), np.einsum('ro,rio->ri', g.reshape(len(x), -1), w)


def check(case: Case, data: Operands, got: tuple[jax.Array, jax.Array]) -> None:
  assert got[0].dtype == jnp.float32 and got[0].shape == (sum(case.sizes), *case.outputs) and got[1].dtype == case.dtype
  close(got, truth(data, case.sizes, case.dtype), TOLERANCE[case.dtype])
