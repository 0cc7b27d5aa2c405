"""The Triton kernels of kernels.lowbit_grouped: grouped matmul with quantised matrices, with the arithmetic of lowbit_triton.

The grid is (T, tiles of O) forward and (T, tiles of K) backward. A program takes a tile of rows of one group; which ones, it
reads from arrays that `tiling` computes from the sizes of the groups. T is the most tiles that so many rows can need; a program
whose tile is empty ends at once. Rows are read in place, and none is written twice.

Letters: R rows, E groups, O outputs, N blocks of inputs, P codes of a byte, K rows of bytes, T tiles of rows.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from kernels.lowbit import FEW
from kernels.lowbit_triton import Plan, held, numbers_of, times_steps
from kernels.lowbit_triton_blocks import Sizes, inside, read, write


class Tiling(NamedTuple):
  """Of each tile: its group, and its rows [first, last). Unused tiles come last and are empty."""

  group_T: jax.Array
  first_T: jax.Array
  last_T: jax.Array


def tiling(sizes_E: jax.Array, rows: int, size: int) -> Tiling:
  """Tiles of at most `size` rows that cover `rows` rows, group after group, none with rows of two groups."""
  groups = len(sizes_E)
  count_E = -(-sizes_E // size)
  end_E = jnp.cumsum(count_E)
  t = jnp.arange(rows // size + min(groups, rows), dtype=jnp.int32)
  group_T = jnp.searchsorted(end_E, t, side='right').astype(jnp.int32)
  of_T = jnp.minimum(group_T, groups - 1)
  last_E = jnp.cumsum(sizes_E)
  first_T = (last_E - sizes_E)[of_T] + (t - (end_E - count_E)[of_T]) * size
  last_T = jnp.where(group_T < groups, jnp.minimum(first_T + size, last_E[of_T]), first_T)
  return Tiling(of_T, *(each.astype(jnp.int32) for each in (first_T, last_T)))


def forward(plan: Plan, dtype: Any, x_RI: jax.Array, sizes_E: jax.Array, codes_EKO: jax.Array, steps_ENO: jax.Array,
            *levels: jax.Array) -> jax.Array:
  """y[R, O] in `dtype`: the first sizes[0] rows of x[R, P K] times the first dequantised matrix, and so on."""
  rows, (groups, depth, outputs), planes = len(x_RI), codes_EKO.shape, held(codes_EKO)
  tile = plan.tile('few' if rows <= FEW * groups else 'many', x_RI.dtype, codes_EKO)
  sizes = Sizes(rows, depth, outputs, steps_ENO.shape[1], tile)
  x_PRK = x_RI.reshape(rows, depth, planes).transpose(2, 0, 1)
  return _call(_forward, plan, sizes, sizes.grid[2], x_PRK, sizes_E, (codes_EKO, steps_ENO, *levels),
               jax.ShapeDtypeStruct((rows, outputs), dtype))


def backward(plan: Plan, dtype: Any, g_RO: jax.Array, sizes_E: jax.Array, codes_EKO: jax.Array, steps_ENO: jax.Array,
             *levels: jax.Array) -> jax.Array:
  """dx[R, P K] in `dtype`: rows of g times the transposes of the same matrices, group by group."""
  rows, (_, depth, outputs), planes = len(g_RO), codes_EKO.shape, held(codes_EKO)
  sizes = Sizes(rows, depth, outputs, steps_ENO.shape[1], plan.tile('gradient', g_RO.dtype, codes_EKO))
  dx_PRK = _call(_backward, plan, sizes, sizes.grid[1], g_RO, sizes_E, (codes_EKO, steps_ENO, *levels),
                 jax.ShapeDtypeStruct((planes, rows, depth), dtype))
  return dx_PRK.transpose(1, 2, 0).reshape(rows, -1)


def _call(kernel, plan, sizes, columns, rows, sizes_E, matrix, result):
  operands = *tiling(sizes_E, sizes.rows, sizes.tile.rows), rows, *matrix

  def whole(array):
    return pl.BlockSpec(array.shape, lambda *_: (0,) * array.ndim)

  body = partial(kernel, sizes) if len(matrix) > 2 else lambda *refs: kernel(sizes, *refs[:6], None, refs[6])
  varying = frozenset().union(*(jax.typeof(each).manual_axis_type.varying for each in operands))
  out = jax.ShapeDtypeStruct(result.shape, result.dtype, manual_axis_type=jax.sharding.ManualAxisType(varying=varying))
  return pl.pallas_call(body, grid=(len(operands[0]), columns), in_specs=[whole(each) for each in operands],
                        out_specs=whole(out), out_shape=out, interpret=plan.interpret, name='lowbit_grouped' + kernel.__name__,
                        compiler_params=plt.CompilerParams(num_warps=sizes.tile.warps, num_stages=sizes.tile.stages))(*operands)


def _rows(sizes, group_ref, first_ref, last_ref):
  """Of this program's tile: the group, the slice of its rows, a mask of those that belong to it, and whether there are any."""
  t = pl.program_id(0)
  group, first, last = (plt.load(ref.at[t]) for ref in (group_ref, first_ref, last_ref))
  return group, pl.ds(first, sizes.tile.rows), first + jnp.arange(sizes.tile.rows) < last, first < last


def _forward(sizes, group_ref, first_ref, last_ref, x_ref, codes_ref, steps_ref, levels_ref, y_ref):
  group, rows, there, some = _rows(sizes, group_ref, first_ref, last_ref)
  j, depth = pl.program_id(1), sizes.tile.depth
  columns = pl.ds(j * sizes.tile.outputs, sizes.tile.outputs)

  def step(k, y_RO):
    at = pl.ds(k * depth, depth)
    numbers = numbers_of(sizes.codes(codes_ref, (group, at, columns), k, j), levels_ref)
    steps_NO = sizes.steps(steps_ref, k, j, columns, group)
    for p, each in enumerate(numbers):
      x_RK = read(x_ref.at[jnp.int32(p), rows, at], there, inside(k, depth, sizes.depth))
      y_RO += plt.dot(x_RK, times_steps(each, steps_NO).astype(x_RK.dtype))
    return y_RO

  trips = jnp.where(some, jnp.int32(sizes.grid[1]), jnp.int32(0))
  y_RO = jax.lax.fori_loop(0, trips, step, jnp.zeros((sizes.tile.rows, sizes.tile.outputs), jnp.float32))
  write(y_ref.at[rows, columns], y_RO, there, inside(j, sizes.tile.outputs, sizes.outputs))


def _backward(sizes, group_ref, first_ref, last_ref, g_ref, codes_ref, steps_ref, levels_ref, dx_ref):
  group, rows, there, some = _rows(sizes, group_ref, first_ref, last_ref)
  k, (size, depth, outputs, *_) = pl.program_id(1), sizes.tile
  at = pl.ds(k * depth, depth)

  def step(j, sums):
    columns = pl.ds(j * outputs, outputs)
    g_RO = read(g_ref.at[rows, columns], there, inside(j, outputs, sizes.outputs))
    numbers = numbers_of(sizes.codes(codes_ref, (group, at, columns), k, j), levels_ref)
    steps_NO = sizes.steps(steps_ref, k, j, columns, group)
    return tuple(total + plt.dot(g_RO, times_steps(each, steps_NO).astype(g_RO.dtype), trans_b=True)
                 for total, each in zip(sums, numbers))

  trips = jnp.where(some, jnp.int32(sizes.grid[2]), jnp.int32(0))
  sums = jax.lax.fori_loop(0, trips, step, (jnp.zeros((size, depth), jnp.float32),) * dx_ref.shape[0])
  for p, dx_RK in enumerate(sums):
    write(dx_ref.at[jnp.int32(p), rows, at], dx_RK, there, inside(k, depth, sizes.depth))
