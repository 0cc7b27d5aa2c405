"""BlockSpecs of the Triton attention kernels, and masked loads and stores where L, S or K is no multiple of a block.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size, W its
next power of two, N blocks of T queries, M blocks of C keys.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt


class Tile(NamedTuple):
  """Queries and keys of a block, Triton's warps and pipeline stages."""

  t: int
  c: int
  warps: int = 4
  stages: int = 2


class Tiles(NamedTuple):
  """Tiles of the forward kernel, of the kernel for dq, and of the kernel for dk and dv."""

  forward: Tile
  queries: Tile
  keys: Tile


class Places(NamedTuple):
  """The BlockSpecs of the operands, by their kind."""

  query: pl.BlockSpec                 # q, g, out and dq
  key: pl.BlockSpec                   # k, v and their gradients
  row: pl.BlockSpec                   # first and last
  note: pl.BlockSpec                  # lse and delta
  bounds: pl.BlockSpec

  @property
  def all(self) -> tuple[pl.BlockSpec, ...]:
    return self.query, self.key, self.key, self.row, self.row, self.note, self.note, self.query


class Sizes(NamedTuple):
  """The sizes of a kernel's operands and blocks."""

  length: int                         # L
  keys: int                           # S
  shared: int                         # R
  size: int                           # K
  width: int                          # W
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
    """For the grid (N, H, B): a block of queries, and all keys. The last blocks first: in causal rows they take longest."""
    n, r, t = self.blocks - 1, self.shared, self.tile.t
    slots, div, rem = pl.cdiv(self.keys, self.tile.c) * self.tile.c, jax.lax.div, jax.lax.rem
    return Places(pl.BlockSpec((None, t, None, None, self.width), lambda i, h, b: (b, n - i, div(h, r), rem(h, r), 0)),
                  pl.BlockSpec((None, slots, None, self.width), lambda i, h, b: (b, 0, div(h, r), 0)),
                  pl.BlockSpec((None, t), lambda i, h, b: (b, n - i)),
                  pl.BlockSpec((None, None, None, t), lambda i, h, b: (b, div(h, r), rem(h, r), n - i)),
                  pl.BlockSpec((None, None, 4), lambda i, h, b: (b, n - i, 0)))

  def by_keys(self) -> Places:
    """For the grid (M, G, B): a block of keys, and all queries of the heads that share them."""
    rows, r = self.blocks * self.tile.t, self.shared
    return Places(pl.BlockSpec((None, rows, None, r, self.width), lambda j, g, b: (b, 0, g, 0, 0)),
                  pl.BlockSpec((None, self.tile.c, None, self.width), lambda j, g, b: (b, j, g, 0)),
                  pl.BlockSpec((None, rows), lambda j, g, b: (b, 0)),
                  pl.BlockSpec((None, None, r, rows), lambda j, g, b: (b, g, 0, 0)),
                  pl.BlockSpec((None, None, 4), lambda j, g, b: (b, j, 0)))

  def queries(self, ref, i, *, whole: bool = False):
    """Block i of queries: [T, W], with zeros beyond L and K. `whole`: no row of it is beyond L."""
    return _read(ref, _mask(ref, i, self.length, self.size, whole))

  def slots(self, ref, j, *, whole: bool = False):
    """Block j of keys or values: [C, W], with zeros beyond S and K."""
    return _read(ref, _mask(ref, j, self.keys, self.size, whole))

  def rows(self, ref, i, *, whole: bool = False):
    """Per-row numbers of block i of queries: [T], with zeros beyond L."""
    return _read(ref, inside(ref, i, self.length, whole))


def inside(ref, i, most, whole=False):
  """bool[T]: which rows of block i are below `most`; None where all of them are."""
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
  """Stores block i of an array of `most` rows and `size` columns, without what is beyond its end."""
  plt.store(ref, value.astype(ref.dtype), mask=_mask(ref, i, most, size, False))
