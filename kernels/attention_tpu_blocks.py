"""Grids, BlockSpecs and padding of the TPU attention kernels.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size, N
blocks of T queries, M blocks of C keys.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from kernels.attention_fused import Plan
from kernels.ranges import Kind


class Tile(NamedTuple):
  """Queries and keys of a block."""

  t: int
  c: int


class Places(NamedTuple):
  """The BlockSpecs of the operands, by their kind."""

  query: pl.BlockSpec                 # q and g
  key: pl.BlockSpec                   # k, v and their gradients
  row: pl.BlockSpec                   # first and last
  note: pl.BlockSpec                  # lse and delta
  column: pl.BlockSpec                # out and dq, as [K, T]

  @property
  def all(self) -> list[pl.BlockSpec]:
    return [self.query, self.key, self.key, self.row, self.row, self.note, self.note, self.query]


class Grid(NamedTuple):
  """The number of blocks of queries and keys, and the most of them that one loop of a kernel visits."""

  tile: Tile
  shared: int                         # R
  size: int                           # K
  blocks: int                         # N of queries
  slots: int                          # M of keys
  walked: int                         # most blocks of keys for a block of queries
  met: int                            # most blocks of queries for a block of keys

  @classmethod
  def of(cls, plan: Plan, q_BLGRK: jax.Array, k_BSGK: jax.Array) -> 'Grid':
    (_, length, _, shared, size), keys, (t, c) = q_BLGRK.shape, k_BSGK.shape[1], plan.tiles
    blocks, slots = pl.cdiv(length, t), pl.cdiv(keys, c)
    walks = [_touched(*plan.kind.keys(i * t, min(i * t + t, length), keys), c) for i in range(blocks)]
    back = Kind(plan.kind.after, plan.kind.before)
    meets = [_touched(*back.keys(j * c, min(j * c + c, keys), length), t) for j in range(slots)]
    return cls(plan.tiles, shared, size, blocks, slots, max(1, *walks), max(1, *meets))

  def queries(self, x_BLGRK: jax.Array) -> jax.Array:
    """[B, G, R, L, K], padded to whole blocks."""
    return _padded(x_BLGRK.transpose(0, 2, 3, 1, 4), 3, self.blocks * self.tile.t)

  def keys(self, x_BSGK: jax.Array) -> jax.Array:
    """[B, G, S, K], padded to whole blocks."""
    return _padded(x_BSGK.transpose(0, 2, 1, 3), 2, self.slots * self.tile.c)

  def rows(self, x_BL: jax.Array) -> jax.Array:
    """[B, 1, L], padded to whole blocks with rows whose range is empty."""
    return _padded(x_BL[:, None], 2, self.blocks * self.tile.t)

  def notes(self, x_BGRL: jax.Array) -> jax.Array:
    """[B, G, R, 1, L], padded to whole blocks."""
    return _padded(x_BGRL[..., None, :], 4, self.blocks * self.tile.t)

  def by_queries(self) -> Places:
    """BlockSpecs for the grid (B, H, N, blocks of keys)."""
    (t, c), r, n, m = self.tile, self.shared, self.blocks, self.slots
    div, rem = jax.lax.div, jax.lax.rem

    def visit(b, i, j, bounds):
      return _visited(bounds, b * n + i, j, m)
    return Places(pl.BlockSpec((None, None, None, t, self.size), lambda b, h, i, j, _: (b, div(h, r), rem(h, r), i, 0)),
                  pl.BlockSpec((None, None, c, self.size), lambda b, h, i, j, s: (b, div(h, r), visit(b, i, j, s), 0)),
                  pl.BlockSpec((None, 1, t), lambda b, h, i, j, _: (b, 0, i)),
                  pl.BlockSpec((None, None, None, 1, t), lambda b, h, i, j, _: (b, div(h, r), rem(h, r), 0, i)),
                  pl.BlockSpec((None, None, None, self.size, t), lambda b, h, i, j, _: (b, div(h, r), rem(h, r), 0, i)))

  def by_keys(self) -> Places:
    """BlockSpecs for the grid (B, G, M, R, blocks of queries)."""
    (t, c), n, m = self.tile, self.blocks, self.slots

    def visit(b, j, i, bounds):
      return _visited(bounds, b * m + j, i, n)
    return Places(pl.BlockSpec((None, None, None, t, self.size), lambda b, g, j, r, i, s: (b, g, r, visit(b, j, i, s), 0)),
                  pl.BlockSpec((None, None, c, self.size), lambda b, g, j, r, i, _: (b, g, j, 0)),
                  pl.BlockSpec((None, 1, t), lambda b, g, j, r, i, s: (b, 0, visit(b, j, i, s))),
                  pl.BlockSpec((None, None, None, 1, t), lambda b, g, j, r, i, s: (b, g, r, 0, visit(b, j, i, s))),
                  pl.BlockSpec((None, None, None, self.size, t), lambda b, g, j, r, i, s: (b, g, r, 0, visit(b, j, i, s))))


def _touched(a, b, size):
  return pl.cdiv(b, size) - a // size


def _padded(x, axis, size):
  return jnp.pad(x, [(0, size - x.shape[axis] if i == axis else 0) for i in range(x.ndim)])


def _visited(bounds, row, step, most):
  """The block of a step of a loop; the last one again, once the loop is over."""
  start, stop = bounds[4 * row], bounds[4 * row + 3]
  return jnp.clip(start + step, 0, jnp.clip(stop - 1, 0, most - 1))
