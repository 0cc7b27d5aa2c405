"""Grouped matmul (kernels.grouped) with quantised matrices, read as codes: mixtures of experts in 4 or 8 bits.

    y_RO = lowbit_grouped(x_RI, sizes_E, codes, steps, levels, dtype='bfloat16')

On a mesh it is called inside shard_map, on each device's own rows and matrices. Codes and steps are frozen.

Letters: R rows, E groups, I inputs, O outputs, N blocks of inputs, C codes of a block.
"""

import math
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from kernels.grouped import alike
from kernels.lowbit import fit, padded


def lowbit_grouped(x_RI: jax.Array, sizes_E: jax.Array, codes: jax.Array, steps_ENO: jax.Array,
                   levels: tuple[float, ...] | None = None, *, dtype: Any, tiles: Any = None,
                   interpret: bool = False) -> jax.Array:
  """y f32[R, *O]: the first sizes[0] rows, cast to `dtype`, times the first matrix, the next sizes[1] times the next.

  Sizes add up to R. Codes are u8[E, N, C / 2, *O] or i8[E, 1, I, *O], with the meaning that they have in kernels.lowbit. Only x
  gets a gradient. Under vmap the calls run one after another.

  Raises: ValueError for shapes that do not fit.
  """
  from kernels.lowbit_triton import Plan  # late: importing Pallas takes a quarter of a second
  fit(x_RI, codes[0], steps_ENO[0])
  table = [] if levels is None else [jnp.asarray(levels, jnp.float32)]
  operands = alike(padded(x_RI, codes.dtype), sizes_E, codes.reshape(len(codes), -1, math.prod(codes.shape[3:])),
                   steps_ENO.reshape(*steps_ENO.shape[:2], -1), *table)
  y_RO = _product(Plan(tiles, interpret), jnp.dtype(dtype), x_RI.dtype)(operands[0], tuple(operands[1:]))
  return y_RO.reshape(len(x_RI), *codes.shape[3:])


@lru_cache
def _product(plan, dtype, x_dtype):
  """The call with its gradient. Cached: equal arguments give the same function object, so jax does not trace it again."""
  from kernels.lowbit_triton_grouped import backward, forward
  push = sequential_vmap(lambda x_RI, *matrix: forward(plan, jnp.float32, x_RI.astype(dtype), *matrix))
  pull = sequential_vmap(lambda g_RO, *matrix: backward(plan, x_dtype, g_RO.astype(dtype), *matrix))

  @jax.custom_vjp
  def product(x_RI, matrix):
    return push(x_RI, *matrix)

  product.defvjp(lambda x_RI, matrix: (product(x_RI, matrix), matrix), lambda matrix, g_RO: (pull(g_RO, *matrix), None))
  return product
