"""Quantised matmul for TPUs, in Pallas (Mosaic): the matrix is dequantised in VMEM only, a piece at a time.

A byte holds P codes. x is split into P planes, plane p with every P-th input, so that a piece of the codes is unpacked and
multiplied P times without a shuffle; planes are stored as Q pieces of D rows, indexed by the piece. The grid is (tiles of M,
tiles of O, tiles of K) forward and (tiles of M, tiles of K, tiles of O) backward, the last axis being summed over. Beyond the
end of that axis x, g and steps are zeros; the codes read there decode to finite numbers. Float32 operands follow
jax.default_matmul_precision, by default bfloat16, as in XLA on a TPU. One chip only: libtpu has no custom partitioning.

Letters: M rows, I inputs, O outputs, N blocks of inputs, P codes of a byte, K rows of bytes, Q pieces of D of them.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as plt

from kernels.lowbit import BLOCK, FEW

SUBLANES, LANES = 16, 128             # of a register of bfloat16; those of float32 have half as many rows


class Tile(NamedTuple):
  """The sizes of the tile of a program."""

  rows: int                           # M
  depth: int                          # D, a multiple of the bytes of a block
  pieces: int                         # of Q
  outputs: int                        # O


class Tiles(NamedTuple):
  """Tiles for up to FEW rows and for more, of the forward and backward kernels alike."""

  few: Tile
  many: Tile


# By bytes of an element of x. Chosen by the number of instructions that the compiler emits; not measured yet.
TILES = {2: Tiles(Tile(16, 256, 4, 1024), Tile(512, 256, 2, 1024)), 4: Tiles(Tile(16, 256, 4, 1024), Tile(512, 256, 2, 512))}


@dataclass(frozen=True)
class Plan:
  """The static arguments of a call."""

  tiles: Tiles | None = None          # None: those of TILES
  interpret: Any = False              # Pallas's interpret mode, for machines without a TPU


class Sizes(NamedTuple):
  """The sizes of a kernel's operands, and its tile, no larger than they are."""

  rows: int                           # M, padded to a multiple of SUBLANES
  depth: int                          # K
  outputs: int                        # O
  planes: int                         # P
  block: int                          # bytes that share a step
  tile: Tile

  @classmethod
  def of(cls, plan: Plan, x: jax.Array, codes_KO: jax.Array) -> 'Sizes':
    rows, (depth, outputs) = len(x) + -len(x) % SUBLANES, codes_KO.shape
    tile = (plan.tiles or TILES[x.dtype.itemsize])[len(x) > FEW]
    deep, wide = min(tile.depth, depth), outputs + -outputs % LANES
    tile = Tile(min(tile.rows, rows), deep, min(tile.pieces, depth // deep), min(tile.outputs, wide))
    return cls(rows, depth, outputs, *((1, deep) if codes_KO.dtype == jnp.int8 else (2, BLOCK // 2)), tile)

  @property
  def grid(self) -> tuple[int, int, int]:
    """How many tiles cover M, K and O."""
    return (pl.cdiv(self.rows, self.tile.rows), pl.cdiv(self.depth, self.tile.depth * self.tile.pieces),
            pl.cdiv(self.outputs, self.tile.outputs))

  @property
  def pieces(self) -> int:
    """Q, padded to whole tiles."""
    return self.grid[1] * self.tile.pieces

  @property
  def wide(self) -> int:
    """O, padded to whole tiles."""
    return self.grid[2] * self.tile.outputs

  def steps(self, steps_NO: jax.Array) -> jax.Array:
    """[Q, blocks of a piece, O], with zeros beyond the last block and the last output."""
    blocks = self.tile.depth // self.block
    if len(steps_NO) == 1:
      steps_NO = jnp.broadcast_to(steps_NO, (self.pieces * blocks, self.outputs))
    return filled_up(steps_NO, self.pieces * blocks, self.wide).reshape(self.pieces, blocks, self.wide)

  def specs(self, order: tuple[int, int, int]) -> tuple[pl.BlockSpec, pl.BlockSpec, pl.BlockSpec, pl.BlockSpec]:
    """BlockSpecs of planes [Q, P, M, D], rows [M, O], codes [K, O] and steps; `order`: the grid axes of M, K and O."""
    (rows, depth, pieces, outputs), (m, k, o) = self.tile, order
    return (pl.BlockSpec((pieces, self.planes, rows, depth), lambda *at: (at[k], 0, at[m], 0)),
            pl.BlockSpec((rows, outputs), lambda *at: (at[m], at[o])),
            pl.BlockSpec((pieces * depth, outputs), lambda *at: (at[k], at[o])),
            pl.BlockSpec((pieces, depth // self.block, outputs), lambda *at: (at[k], 0, at[o])))

  def made(self, piece: Any, codes_ref: Any, steps_ref: Any, levels_ref: Any, dtype: Any) -> list[jax.Array]:
    """A dequantised piece, as P matrices [D, O]."""
    depth = self.tile.depth
    numbers = numbers_of(codes_ref[pl.ds(pl.multiple_of(piece * depth, depth), depth), :], levels_ref)
    return [times_steps(each, steps_ref[piece]).astype(dtype) for each in numbers]


def filled_up(x: jax.Array, *sizes: int) -> jax.Array:
  """x, zero-padded to these sizes."""
  return jnp.pad(x, [(0, size - of) for size, of in zip(sizes, x.shape)])


def forward(plan: Plan, dtype: Any, x_MI: jax.Array, codes_KO: jax.Array, steps_NO: jax.Array,
            *levels: jax.Array) -> jax.Array:
  """y[M, O] in `dtype`: x[M, P K] times the dequantised matrix, accumulated in float32. N divides K.

  4-bit codes stand for levels[code], f32[16], or without levels for code - 8.
  """
  sizes = Sizes.of(plan, x_MI, codes_KO)
  (m, k, o), depth = sizes.grid, sizes.tile.depth
  planes, rows, codes, steps = sizes.specs((0, 2, 1))
  x_MQDP = filled_up(x_MI, sizes.rows, sizes.pieces * depth * sizes.planes).reshape(sizes.rows, sizes.pieces, depth, -1)
  call = _call(_forward, plan, sizes, (m, o, k), [planes, codes, steps], rows,
               jax.ShapeDtypeStruct((sizes.rows, sizes.outputs), dtype), (sizes.tile.rows, sizes.tile.outputs))
  return call(x_MQDP.transpose(1, 3, 0, 2), codes_KO, sizes.steps(steps_NO), *levels)[:len(x_MI)]


def backward(plan: Plan, dtype: Any, g_MO: jax.Array, codes_KO: jax.Array, steps_NO: jax.Array,
             *levels: jax.Array) -> jax.Array:
  """dx[M, P K] in `dtype`: g times the transpose of the dequantised matrix."""
  sizes = Sizes.of(plan, g_MO, codes_KO)
  (m, k, o), (tall, depth, pieces, _) = sizes.grid, sizes.tile
  planes, rows, codes, steps = sizes.specs((0, 1, 2))
  call = _call(_backward, plan, sizes, (m, k, o), [rows, codes, steps], planes,
               jax.ShapeDtypeStruct((sizes.pieces, sizes.planes, sizes.rows, depth), dtype),
               (pieces, sizes.planes, tall, depth))
  dx_QPMD = call(filled_up(g_MO, sizes.rows, sizes.wide), codes_KO, sizes.steps(steps_NO), *levels)
  dx_MI = dx_QPMD.transpose(2, 0, 3, 1).reshape(sizes.rows, -1)
  return dx_MI[:len(g_MO), :sizes.depth * sizes.planes]


def _call(kernel, plan, sizes, grid, inputs, output, shape, sums):
  def call(*operands):
    levels = [each[:, None] for each in operands[3:]]
    table = [pl.BlockSpec(each.shape, lambda *_: (0, 0)) for each in levels]
    body = partial(kernel, sizes) if table else lambda *refs: kernel(sizes, *refs[:3], None, *refs[3:])
    return pl.pallas_call(body, grid=grid, in_specs=[*inputs, *table], out_specs=output, out_shape=shape,
                          scratch_shapes=[plt.VMEM(sums, jnp.float32)], interpret=plan.interpret,
                          name='lowbit' + kernel.__name__, compiler_params=plt.CompilerParams(
                            dimension_semantics=('parallel', 'parallel', 'arbitrary')))(*operands[:3], *levels)

  return call


def _dot(a, b, i, j):
  """a times b, contracting dimension i of a and j of b: f32. For bfloat16 Mosaic has the default precision only."""
  precision = None if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
  return jax.lax.dot_general(a, b, (((i,), (j,)), ((), ())), precision, preferred_element_type=jnp.float32)


def _summed(sum_ref, result_ref, pieces, visit):
  """Sums over the last grid axis: zeroes `sum_ref` at its first step, calls `visit` on each piece, writes after the last."""
  @pl.when(pl.program_id(2) == 0)
  def begin():
    sum_ref[...] = jnp.zeros_like(sum_ref)

  jax.lax.fori_loop(0, pieces, lambda piece, _: visit(piece), None)

  @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
  def end():
    result_ref[...] = sum_ref[...].astype(result_ref.dtype)


def _forward(sizes, x_ref, codes_ref, steps_ref, levels_ref, y_ref, sum_ref):
  def visit(piece):
    w = sizes.made(piece, codes_ref, steps_ref, levels_ref, x_ref.dtype)
    sum_ref[...] += sum(_dot(x_ref[piece, p], each, 1, 0) for p, each in enumerate(w))

  _summed(sum_ref, y_ref, sizes.tile.pieces, visit)


def _backward(sizes, g_ref, codes_ref, steps_ref, levels_ref, dx_ref, sum_ref):
  def visit(piece):
    for p, each in enumerate(sizes.made(piece, codes_ref, steps_ref, levels_ref, g_ref.dtype)):
      sum_ref[piece, p] += _dot(g_ref[...], each, 1, 1)

  _summed(sum_ref, dx_ref, sizes.tile.pieces, visit)


def numbers_of(codes, levels_ref):
  """The numbers of a tile of codes before their steps: P arrays f32 of its shape."""
  whole = codes.astype(jnp.int32)
  if codes.dtype == jnp.int8:
    return [whole.astype(jnp.float32)]
  halves = whole >> 4, whole & 15
  return [(each - 8).astype(jnp.float32) if levels_ref is None else _looked_up(each, levels_ref) for each in halves]


def _looked_up(codes_DO, levels_ref):
  """levels[code]: a gather within a register reaches eight rows, so there is one for codes below 8 and one for the others."""
  eighth = (codes_DO & 7).reshape(-1, 8, codes_DO.shape[1])
  first, second = (jnp.take_along_axis(jnp.broadcast_to(levels_ref[at:at + 8], eighth.shape), eighth, 1,
                                       mode='promise_in_bounds').reshape(codes_DO.shape) for at in (0, 8))
  return jnp.where(codes_DO < 8, first, second)


def times_steps(numbers_DO, steps_NO):
  """[D, O]: each block of numbers times its step."""
  blocks = numbers_DO.reshape(steps_NO.shape[0], -1, steps_NO.shape[1])
  return (blocks * steps_NO[:, None]).reshape(numbers_DO.shape)
