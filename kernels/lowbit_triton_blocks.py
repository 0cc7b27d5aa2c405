"""What a program of the low-bit Triton kernels is given, and how it reads and writes it where arrays end short of a tile.

Letters: M rows, I inputs, O outputs, N blocks of inputs, K rows of bytes, S programs that share a sum.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt


class Tile(NamedTuple):
  """What a program does at once, and how it is compiled for that."""

  rows: int                           # M
  depth: int                          # K, a multiple of what shares a scale or a divisor of it
  outputs: int                        # O
  warps: int = 4
  stages: int = 3
  programs: int = 1                   # so many are wanted at least: where there are fewer, they share sums


class Tiles(NamedTuple):
  """Of the product with up to VECTOR rows, up to FEW, with more, and of the gradient."""

  vector: Tile
  few: Tile
  many: Tile
  gradient: Tile


class Sizes(NamedTuple):
  """Of a kernel's operands and its tile."""

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
    """S."""
    m, k, o = self.grid
    return max(1, min(k, pl.cdiv(self.tile.programs, m * o)))

  def walk(self, step, carry):
    """`step(k, carry)` over the tiles of K that this program of its S takes."""
    k = self.grid[1]
    each = pl.cdiv(k, self.shares)
    start = pl.program_id(2) * each
    return jax.lax.fori_loop(start, jnp.minimum(start + each, k), step, carry)

  def codes(self, ref, at, k, j):
    """The tile (k, j) of the codes, read at `at` of what the program was given."""
    return read(ref.at[at], inside(k, self.tile.depth, self.depth), inside(j, self.tile.outputs, self.outputs))

  def steps(self, ref, k, j, columns, *group):
    """The steps of that tile, [n, O]: one for each of the blocks that it covers, or the one block that it lies in."""
    of_outputs = inside(j, self.tile.outputs, self.outputs)
    if self.blocks == 1:
      return read(ref.at[*group, :, columns], None, of_outputs)
    block = self.depth // self.blocks
    count = max(1, self.tile.depth // block)
    first = k * count if self.tile.depth >= block else jax.lax.div(k * self.tile.depth, block)
    return read(ref.at[*group, pl.ds(first, count), columns], inside(k, count, self.blocks) if count > 1 else None, of_outputs)


def inside(i, count, most):
  """Which of the tile i of `count` there are of `most`; None where that is all of them."""
  return None if most % count == 0 else i * count + jnp.arange(count) < most


def read(ref, *masks):
  """What `inside` says there is, of one dimension or of two; zeros elsewhere."""
  mask = _mask(*masks) if len(masks) == 2 else masks[0]
  return plt.load(ref) if mask is None else plt.load(ref, mask=mask, other=0)


def write(ref, value, rows, columns):
  plt.store(ref, value.astype(ref.dtype), mask=_mask(rows, columns))


def _mask(rows, columns):
  if rows is None:
    return None if columns is None else columns[None]
  return rows[:, None] if columns is None else rows[:, None] & columns[None]
