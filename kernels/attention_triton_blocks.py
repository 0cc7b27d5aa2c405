"""What a program of the Triton kernels is given, and how it reads and writes it where rows or heads end short of a block.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size, W that
of a program, N blocks of T queries, M blocks of C keys.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt


class Tile(NamedTuple):
  """Queries and keys of a block, and how a kernel is compiled for them."""

  t: int
  c: int
  warps: int = 4
  stages: int = 2


class Tiles(NamedTuple):
  """Of the forward kernel, of that for dq, and of that for dk and dv."""

  forward: Tile
  queries: Tile
  keys: Tile


class Places(NamedTuple):
  """What of each operand a program is given."""

  query: pl.BlockSpec                 # q, g, out and dq
  key: pl.BlockSpec                   # k, v and their gradients
  row: pl.BlockSpec                   # first and last
  note: pl.BlockSpec                  # lse and delta
  bounds: pl.BlockSpec

  @property
  def all(self) -> tuple[pl.BlockSpec, ...]:
    return self.query, self.key, self.key, self.row, self.row, self.note, self.note, self.query


class Sizes(NamedTuple):
  """Of a kernel's operands and its blocks."""

  length: int                         # L
  keys: int                           # S
  shared: int                         # R
  size: int                           # K
  width: int                          # of a head in a program: a power of two
  tile: Tile

  @classmethod
  def of(cls, q_BLGRK: jax.Array, k_BSGK: jax.Array, tile: Tile) -> 'Sizes':
    _, length, _, shared, size = q_BLGRK.shape
    return cls(length, k_BSGK.shape[1], shared, size, max(16, pl.next_power_of_2(size)), tile)

  @property
  def blocks(self) -> int:
    """Blocks of queries."""
    return pl.cdiv(self.length, self.tile.t)

  def by_queries(self) -> Places:
    """For a grid of (N, H, B): a block of queries and all keys. The last blocks first, since causal rows end heavy."""
    n, r, t = self.blocks - 1, self.shared, self.tile.t
    slots, div, rem = pl.cdiv(self.keys, self.tile.c) * self.tile.c, jax.lax.div, jax.lax.rem
    return Places(pl.BlockSpec((None, t, None, None, self.width), lambda i, h, b: (b, n - i, div(h, r), rem(h, r), 0)),
                  pl.BlockSpec((None, slots, None, self.width), lambda i, h, b: (b, 0, div(h, r), 0)),
                  pl.BlockSpec((None, t), lambda i, h, b: (b, n - i)),
                  pl.BlockSpec((None, None, None, t), lambda i, h, b: (b, div(h, r), rem(h, r), n - i)),
                  pl.BlockSpec((None, None, 4), lambda i, h, b: (b, n - i, 0)))

  def by_keys(self) -> Places:
    """For a grid of (M, G, B): a block of keys and all queries of the heads that share them."""
    rows, r = self.blocks * self.tile.t, self.shared
    return Places(pl.BlockSpec((None, rows, None, r, self.width), lambda j, g, b: (b, 0, g, 0, 0)),
                  pl.BlockSpec((None, self.tile.c, None, self.width), lambda j, g, b: (b, j, g, 0)),
                  pl.BlockSpec((None, rows), lambda j, g, b: (b, 0)),
                  pl.BlockSpec((None, None, r, rows), lambda j, g, b: (b, g, 0, 0)),
                  pl.BlockSpec((None, None, 4), lambda j, g, b: (b, j, 0)))

  def queries(self, ref, i, *, whole: bool = False):
    """The block i of queries: [T, W], zeros beyond the last row and the last of a head."""
    return _read(ref, _mask(ref, i, self.length, self.size, whole))

  def slots(self, ref, j, *, whole: bool = False):
    """The block j of keys: [C, W], likewise."""
    return _read(ref, _mask(ref, j, self.keys, self.size, whole))

  def rows(self, ref, i, *, whole: bool = False):
    """What the block i of queries has one of in each row: [T], zeros beyond the last."""
    return _read(ref, inside(ref, i, self.length, whole))


def inside(ref, i, most, whole=False):
  """Which rows of the block i of `most` there are; None where that is all of them."""
  count = ref.shape[0]
  return None if whole or most % count == 0 else i * count + jnp.arange(count) < most


def _mask(ref, i, most, size, whole):
  rows, columns = inside(ref, i, most, whole), None if ref.shape[1] == size else jnp.arange(ref.shape[1])[None] < size
  if rows is None:
    return columns
  return rows[:, None] if columns is None else rows[:, None] & columns


def _read(ref, mask):
  return plt.load(ref) if mask is None else plt.load(ref, mask=mask, other=0)


def store(ref, value, i, most, size):
  plt.store(ref, value.astype(ref.dtype), mask=_mask(ref, i, most, size, False))
