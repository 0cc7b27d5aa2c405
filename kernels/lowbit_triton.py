"""Quantised matmul for NVIDIA GPUs, in Pallas with the Triton backend: the matrix is dequantised in registers only.

A byte holds P codes. x is split into P planes [P, M, K], plane p with every P-th input, so that a block of bytes is unpacked
and multiplied P times without a shuffle. The grid is (tiles of M, tiles of O, S) forward and (tiles of M, tiles of K) backward.
Up to VECTOR rows the products are elementwise, bound by memory bandwidth; above that they use tensor cores. Where the grid
would be small, S programs share a sum (split-K); XLA adds the parts in a fixed order, so equal inputs give equal bits. Unevenly
spaced levels (NF4) are loaded from a table: 64 bytes in the L1 cache cost one instruction, a tree of selections 15.

Letters: M rows, I inputs, O outputs, N blocks of inputs, P codes of a byte, K rows of bytes, S programs that share a sum.
"""

from dataclasses import dataclass
from functools import partial, reduce
from operator import add, mul
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from kernels.lowbit import FEW
from kernels.lowbit_triton_blocks import Sizes, Tile, Tiles, inside, read, write

VECTOR = 4                            # most rows for which tensor cores would mostly multiply padding
SHIFT = 0x4B400000                    # the bits of 1.5 * 2**23, a float32 whose last bit is worth 1

# By bytes of an element of x and codes of a byte; not measured yet.
TILES: dict[tuple[int, int], Tiles] = {
  (2, 2): Tiles(Tile(1, 32, 128, 4, 2, 528), Tile(16, 64, 128, 4, 3, 264), Tile(128, 32, 128, 8, 3), Tile(128, 64, 64, 8, 3)),
  (2, 1): Tiles(Tile(1, 32, 128, 4, 2, 528), Tile(16, 64, 128, 4, 3, 264), Tile(128, 64, 128, 8, 3), Tile(128, 128, 64, 8, 3)),
  (4, 2): Tiles(Tile(1, 32, 128, 4, 2, 528), Tile(16, 32, 64, 4, 2, 264), Tile(64, 32, 64, 4, 2), Tile(64, 32, 32, 4, 2)),
  (4, 1): Tiles(Tile(1, 32, 128, 4, 2, 528), Tile(16, 64, 64, 4, 2, 264), Tile(64, 32, 64, 4, 2), Tile(64, 64, 32, 4, 2)),
}


@dataclass(frozen=True)
class Plan:
  """The static arguments of a call."""

  tiles: Tiles | None = None          # None: those of TILES
  interpret: bool = False             # Pallas's interpret mode, for machines without a GPU

  def tile(self, name: str, dtype: Any, codes_KO: jax.Array) -> Tile:
    """The tile of the kernel `name`, a field of Tiles."""
    return getattr(self.tiles or TILES[jnp.dtype(dtype).itemsize, held(codes_KO)], name)


def held(codes: jax.Array) -> int:
  """P: the codes of a byte."""
  return 1 if codes.dtype == jnp.int8 else 2


def forward(plan: Plan, dtype: Any, x_MI: jax.Array, codes_KO: jax.Array, steps_NO: jax.Array,
            *levels: jax.Array) -> jax.Array:
  """y[M, O] in `dtype`: x[M, P K] times the dequantised matrix, accumulated in float32. N divides K.

  4-bit codes stand for levels[code], f32[16], or without levels for code - 8.
  """
  (rows, _), (depth, outputs) = x_MI.shape, codes_KO.shape
  kernel, name = (_vector, 'vector') if rows <= VECTOR else (_matrix, 'few' if rows <= FEW else 'many')
  tile = plan.tile(name, x_MI.dtype, codes_KO)
  if kernel is _vector:
    tile = tile._replace(rows=rows, depth=tile.depth // pl.next_power_of_2(rows))     # sums of all rows fit into registers
  sizes = Sizes(rows, depth, outputs, steps_NO.shape[0], tile)
  shares = sizes.shares
  m, k, o = sizes.grid
  planes = held(codes_KO)
  y_SMO = jax.ShapeDtypeStruct((shares, rows, outputs), dtype if shares == 1 else jnp.float32)
  inputs = [pl.BlockSpec((planes, tile.rows, k * tile.depth), lambda i, j, s: (0, i, 0)),
            pl.BlockSpec((k * tile.depth, tile.outputs), lambda i, j, s: (0, j)),
            pl.BlockSpec((sizes.blocks, tile.outputs), lambda i, j, s: (0, j))]
  operands = x_MI.reshape(rows, depth, planes).transpose(2, 0, 1), codes_KO, steps_NO, *levels
  call = _call(kernel, plan, sizes, (m, o, shares), inputs, pl.BlockSpec((None, tile.rows, tile.outputs),
                                                                        lambda i, j, s: (s, i, j)), y_SMO)
  return call(*operands).sum(0).astype(dtype) if shares > 1 else call(*operands)[0]


def backward(plan: Plan, dtype: Any, g_MO: jax.Array, codes_KO: jax.Array, steps_NO: jax.Array,
             *levels: jax.Array) -> jax.Array:
  """dx[M, P K] in `dtype`: g times the transpose of the dequantised matrix."""
  (rows, outputs), depth, planes = g_MO.shape, codes_KO.shape[0], held(codes_KO)
  tile = plan.tile('gradient', g_MO.dtype, codes_KO)
  sizes = Sizes(rows, depth, outputs, steps_NO.shape[0], tile)
  m, k, o = sizes.grid
  wide = o * tile.outputs
  specs = [pl.BlockSpec((tile.rows, wide), lambda i, j: (i, 0)), pl.BlockSpec((tile.depth, wide), lambda i, j: (j, 0)),
           pl.BlockSpec((sizes.blocks, wide), lambda i, j: (0, 0))]
  dx_PMK = _call(_gradient, plan, sizes, (m, k), specs, pl.BlockSpec((planes, tile.rows, tile.depth), lambda i, j: (0, i, j)),
                 jax.ShapeDtypeStruct((planes, rows, depth), dtype))(g_MO, codes_KO, steps_NO, *levels)
  return dx_PMK.transpose(1, 2, 0).reshape(rows, -1)


def _call(kernel, plan, sizes, grid, inputs, output, shape):
  def call(*operands):
    table = [pl.BlockSpec(levels.shape, lambda *_: (0,)) for levels in operands[3:]]
    body = partial(kernel, sizes) if table else lambda *refs: kernel(sizes, *refs[:3], None, refs[3])
    return pl.pallas_call(body, grid=grid, in_specs=[*inputs, *table], out_specs=output, out_shape=shape,
                          interpret=plan.interpret, name='lowbit' + kernel.__name__, compiler_params=plt.CompilerParams(
                            num_warps=sizes.tile.warps, num_stages=sizes.tile.stages))(*operands)

  return call


def _vector(sizes, x_ref, codes_ref, steps_ref, levels_ref, y_ref):
  j, (rows, depth, outputs, *_) = pl.program_id(1), sizes.tile

  def step(k, sums):
    at = pl.ds(k * depth, depth)
    numbers = numbers_of(sizes.codes(codes_ref, at, k, j), levels_ref)
    steps_NO = sizes.steps(steps_ref, k, j, slice(None))
    xs = [[read(x_ref.at[jnp.int32(p), jnp.int32(m), at], inside(k, depth, sizes.depth)).astype(jnp.float32)[:, None]
           for p in range(len(numbers))] for m in range(rows)]
    return tuple(total + times_steps(reduce(add, map(mul, numbers, row)), steps_NO) for total, row in zip(sums, xs))

  sums = sizes.walk(step, (jnp.zeros((depth, outputs), jnp.float32),) * rows)
  for m, total in enumerate(sums):
    plt.store(y_ref.at[jnp.int32(m)], jnp.sum(total, 0).astype(y_ref.dtype), mask=inside(j, outputs, sizes.outputs))


def _matrix(sizes, x_ref, codes_ref, steps_ref, levels_ref, y_ref):
  i, j, (rows, depth, outputs, *_) = pl.program_id(0), pl.program_id(1), sizes.tile

  def step(k, y_MO):
    at = pl.ds(k * depth, depth)
    numbers = numbers_of(sizes.codes(codes_ref, at, k, j), levels_ref)
    steps_NO = sizes.steps(steps_ref, k, j, slice(None))
    for p, each in enumerate(numbers):
      x_MK = read(x_ref.at[jnp.int32(p), :, at], inside(i, rows, sizes.rows), inside(k, depth, sizes.depth))
      y_MO += plt.dot(x_MK, times_steps(each, steps_NO).astype(x_MK.dtype))
    return y_MO

  y_MO = sizes.walk(step, jnp.zeros((rows, outputs), jnp.float32))
  write(y_ref, y_MO, inside(i, rows, sizes.rows), inside(j, outputs, sizes.outputs))


def _gradient(sizes, g_ref, codes_ref, steps_ref, levels_ref, dx_ref):
  i, k, (rows, depth, outputs, *_) = pl.program_id(0), pl.program_id(1), sizes.tile

  def step(j, sums):
    at = pl.ds(j * outputs, outputs)
    g_MO = read(g_ref.at[:, at], inside(i, rows, sizes.rows), inside(j, outputs, sizes.outputs))
    numbers = numbers_of(sizes.codes(codes_ref, (slice(None), at), k, j), levels_ref)
    steps_NO = sizes.steps(steps_ref, k, j, at)
    return tuple(total + plt.dot(g_MO, times_steps(each, steps_NO).astype(g_MO.dtype), trans_b=True)
                 for total, each in zip(sums, numbers))

  sums = jax.lax.fori_loop(0, sizes.grid[2], step, (jnp.zeros((rows, depth), jnp.float32),) * dx_ref.shape[0])
  for p, dx_MK in enumerate(sums):
    write(dx_ref.at[jnp.int32(p)], dx_MK, inside(i, rows, sizes.rows), inside(k, depth, sizes.depth))


def numbers_of(codes, levels_ref):
  """The numbers of a tile of codes before their steps: P arrays f32 of its shape."""
  if codes.dtype == jnp.int8:
    return (_whole(codes.astype(jnp.int32), 0),)
  codes = codes.astype(jnp.int32)
  halves = codes >> 4, codes & 15
  return tuple(_whole(each, 8) if levels_ref is None else plt.load(levels_ref.at[each]) for each in halves)


def _whole(code, zero):
  """code - zero, f32, by integer addition to the bits of SHIFT and a subtraction: faster than a conversion."""
  return jax.lax.bitcast_convert_type(code + SHIFT, jnp.float32) - (1.5 * 2.0**23 + zero)


def times_steps(numbers_KO, steps_NO):
  """[K, O]: each block of numbers times its step."""
  if steps_NO.shape[0] == 1:
    return numbers_KO * steps_NO
  blocks = numbers_KO.reshape(steps_NO.shape[0], -1, steps_NO.shape[1])
  return (blocks * steps_NO[:, None]).reshape(numbers_KO.shape)
