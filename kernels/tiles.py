"""Tiled computation on logits [B, L, V]: one tile, some positions of every row, at a time, so that rows may be sharded.

Shared by `kernels.head` and `kernels.divergence`.

Letters: B rows, L positions, D width, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kernels.matmul import settled

TILE_ON_CPU, TILE = 2**22, 2**27    # float32 of a tile on each device: 16 MB fit a CPU's cache, 512 MB keep a GPU busy

Tile = Callable[[Any, Any], tuple[Any, Any]]


def scan(tile: Tile, carry: Any, arrays: Any, vocab: int, kinds: int = 1, live_BL: jax.Array | None = None) -> tuple[Any, Any]:
  """Scans `tile` over [B, l, ...] pieces of [B, L, ...] arrays: the last carry, and the results as [B, L, ...].

  A tile holds `kinds` numbers (of a student and a teacher, say) for each of its positions and ids. Given `live_BL`, bool, tiles
  without a live position are skipped: they leave the carry unchanged, and their results are zeros.
  """
  batch, length = jax.tree.leaves(arrays)[0].shape[:2]
  tiles = -(-length // positions(kinds * batch, vocab))
  size = -(-length // tiles)

  def cut(a: jax.Array) -> jax.Array:
    a = jnp.pad(a, ((0, 0), (0, tiles * size - length), *((0, 0),) * (a.ndim - 2)))
    return a.reshape(batch, tiles, size, *a.shape[2:]).swapaxes(0, 1)

  def join(a: jax.Array) -> jax.Array:
    return a.swapaxes(0, 1).reshape(batch, tiles * size, *a.shape[3:])[:, :length]

  if live_BL is None or tiles == 1:                    # a branch, which XLA does not fuse across, does not pay for one tile
    carry, results = jax.lax.scan(tile, carry, jax.tree.map(cut, arrays))
  else:
    live_T = cut(live_BL).any((1, 2))                  # of all tiles at once: one all-reduce over the devices that hold rows
    carry, results = jax.lax.scan(partial(_where_live, tile), carry, (live_T, jax.tree.map(cut, arrays)))
  return carry, jax.tree.map(join, results)


def _where_live(tile: Tile, carry: Any, piece: Any) -> tuple[Any, Any]:
  live, part = piece

  def nothing(carry: Any, part: Any) -> tuple[Any, Any]:
    return carry, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(tile, carry, part)[1])

  return jax.lax.cond(live, tile, nothing, carry, part)


def positions(batch: int, vocab: int) -> int:
  """How many positions of each row make a tile, on this backend and the current mesh."""
  budget = TILE_ON_CPU if jax.default_backend() == 'cpu' else TILE
  devices = max(1, jax.sharding.get_abstract_mesh().size)
  return max(1, budget * devices // (batch * vocab))


def pull(x_BLD: jax.Array, w_DV: jax.Array, dlogits_BLV: jax.Array, dtype: jnp.dtype,
         groups: int = 1) -> tuple[jax.Array, jax.Array]:
  """The gradients of x and w, given those of the logits x w: f32[B, L, D] and f32[D, V], of operands in `dtype`.

  With several `groups` of rows the second is f32[groups, D, V], a sum for each: see `sums`.
  """
  if groups > 1:
    each = (a.reshape(groups, -1, *a.shape[1:]) for a in (x_BLD, dlogits_BLV))
    dx_GBLD, dw_GDV = jax.vmap(lambda x, dlogits: pull(x, w_DV, dlogits, dtype))(*each)
    return dx_GBLD.reshape(x_BLD.shape), dw_GDV
  dlogits = dlogits_BLV.astype(dtype)
  dx = jnp.tensordot(dlogits, w_DV, (-1, 1), preferred_element_type=jnp.float32)
  dw_DV = jnp.tensordot(x_BLD.astype(dtype), dlogits, ((0, 1), (0, 1)), preferred_element_type=jnp.float32)
  return settled(dx, dtype), settled(dw_DV, dtype)


def sums(w_DV: jax.Array, groups: int) -> jax.Array:
  """Zeros to which the gradients of w that `pull` gives are added, tile by tile: f32[D, V] or f32[groups, D, V].

  Groups of rows are on different devices. Each accumulates its own sum over all tiles, and `total` adds these at the end: one
  all-reduce over the mesh instead of one in every tile.
  """
  return jnp.zeros(w_DV.shape if groups == 1 else (groups, *w_DV.shape), jnp.float32)


def total(dw: jax.Array, groups: int) -> jax.Array:
  """f32[D, V]: the sum over groups."""
  return dw if groups == 1 else dw.sum(0)


def operand_dtype(x: jax.Array, w: jax.Array, dtype: jnp.dtype | type | None) -> jnp.dtype:
  """The dtype of a product's operands: `dtype`, or that to which x and w promote."""
  return jnp.dtype(jnp.result_type(x, w) if dtype is None else dtype)


def weighted(weights_BL: jax.Array, arrays: Any) -> Any:
  """A tree of [B, L, ...] arrays with zeros at the positions whose weight is 0, whatever they held (NaN, ids out of range)."""
  return jax.tree.map(lambda a: jnp.where(jnp.expand_dims(weights_BL != 0, tuple(range(2, a.ndim))), a, 0), arrays)
