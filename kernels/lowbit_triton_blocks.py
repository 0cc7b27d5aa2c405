"""Tiles of the quantised-matmul Triton kernels, and masked loads and stores where arrays are no multiple of a tile.

Letters: M rows, I inputs, O outputs, N blocks of inputs, K rows of bytes, S programs that share a sum.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt


class Tile(NamedTuple):
  """The sizes of the tile of a program, Triton's warps and pipeline stages."""

  rows: int                           # M
  depth: int                          # K: a multiple or a divisor of the bytes that share a step
  outputs: int                        # O
  warps: int = 4
  stages: int = 3
  programs: int = 1                   # the least wanted: a smaller grid is enlarged by split-K


class Tiles(NamedTuple):
  """Tiles for up to VECTOR rows, up to FEW, for more, and for the gradient of x."""

  vector: Tile
  few: Tile
  many: Tile
  gradient: Tile


class Sizes(NamedTuple):
  """The sizes of a kernel's operands, and its tile."""

  rows: int                           # M
  depth: int                          # K
  outputs: int                        # O
  blocks: int                         # N
  tile: Tile

  @property
  def grid(self) -> tuple[int, int, int]:
    """How many tiles cover M, K and O."""
    return pl.cdiv(self.rows, self.tile.rows), pl.cdiv(self.depth, self.tile.depth), pl.cdiv(self.outputs, self.tile.outputs)

  @property
  def shares(self) -> int:
    """S: programs that share a sum."""
    m, k, o = self.grid
    return max(1, min(k, pl.cdiv(self.tile.programs, m * o)))

  def walk(self, step, carry):
    """Loops `step(k, carry)` over this program's share of the tiles of K."""
    k = self.grid[1]
    each = pl.cdiv(k, self.shares)
    start = pl.program_id(2) * each
    return jax.lax.fori_loop(start, jnp.minimum(start + each, k), step, carry)

  def codes(self, ref, at, k, j):
    """Tile (k, j) of the codes, read from `ref.at[at]`."""
    return read(ref.at[at], inside(k, self.tile.depth, self.depth), inside(j, self.tile.outputs, self.outputs))

  def steps(self, ref, k, j, columns, *group):
    """The steps of tile (k, j), [n, O]: of the n blocks that it covers, or of the one block that it is part of."""
    of_outputs = inside(j, self.tile.outputs, self.outputs)
    if self.blocks == 1:
      return read(ref.at[*group, :, columns], None, of_outputs)
    block = self.depth // self.blocks
    count = max(1, self.tile.depth // block)
    first = k * count if self.tile.depth >= block else jax.lax.div(k * self.tile.depth, block)
    return read(ref.at[*group, pl.ds(first, count), columns], inside(k, count, self.blocks) if count > 1 else None, of_outputs)


def inside(i, count, most):
  """bool[count]: which indices of tile i are below `most`; None where all of them are."""
  return None if most % count == 0 else i * count + jnp.arange(count) < most


def read(ref, *masks):
  """A load with masks of `inside` for one dimension or two: zeros where a mask is False."""
  mask = _mask(*masks) if len(masks) == 2 else masks[0]
  return plt.load(ref) if mask is None else plt.load(ref, mask=mask, other=0)


def write(ref, value, rows, columns):
  """A store with the masks of `inside` for rows and columns."""
  plt.store(ref, value.astype(ref.dtype), mask=_mask(rows, columns))


def _mask(rows, columns):
  if rows is None:
    return None if columns is None else columns[None]
  return rows[:, None] if columns is None else rows[:, None] & columns[None]
