"""Work on [B, L, V] numbers piece by piece: a tile is some positions of every row, so that rows may lie on different devices.

Letters: B rows, L positions, D width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kernels.matmul import settled

TILE_ON_CPU, TILE = 2**22, 2**27    # numbers of a tile on each device: 16 MB stays near the cores, 512 MB fills a GPU

Tile = Callable[[Any, Any], tuple[Any, Any]]


def scan(tile: Tile, carry: Any, arrays: Any, vocab: int, kinds: int = 1) -> tuple[Any, Any]:
  """`tile` over [B, l, ...] pieces of [B, L, ...] arrays, one after another: the last carry, and results as [B, L, ...].

  A tile holds `kinds` numbers for each of its positions and ids.
  """
  batch, length = jax.tree.leaves(arrays)[0].shape[:2]
  tiles = -(-length // positions(kinds * batch, vocab))
  size = -(-length // tiles)

  def cut(a: jax.Array) -> jax.Array:
    a = jnp.pad(a, ((0, 0), (0, tiles * size - length), *((0, 0),) * (a.ndim - 2)))
    return a.reshape(batch, tiles, size, *a.shape[2:]).swapaxes(0, 1)

  def join(a: jax.Array) -> jax.Array:
    return a.swapaxes(0, 1).reshape(batch, tiles * size, *a.shape[3:])[:, :length]

  carry, results = jax.lax.scan(tile, carry, jax.tree.map(cut, arrays))
  return carry, jax.tree.map(join, results)


def positions(batch: int, vocab: int) -> int:
  """How many positions of each row make a tile, on the machine and mesh that are here."""
  budget = TILE_ON_CPU if jax.default_backend() == 'cpu' else TILE
  devices = max(1, jax.sharding.get_abstract_mesh().size)
  return max(1, budget * devices // (batch * vocab))


def pull(x_BLD: jax.Array, w_DV: jax.Array, dlogits_BLV: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
  """The gradients of x and w where logits are x w: operands in `dtype`, f32[B, L, D] and f32[D, V]."""
  dlogits = dlogits_BLV.astype(dtype)
  dx = jnp.tensordot(dlogits, w_DV, (-1, 1), preferred_element_type=jnp.float32)
  dw_DV = jnp.tensordot(x_BLD.astype(dtype), dlogits, ((0, 1), (0, 1)), preferred_element_type=jnp.float32)
  return settled(dx, dtype), settled(dw_DV, dtype)


def operand_dtype(x: jax.Array, w: jax.Array, dtype: jnp.dtype | type | None) -> jnp.dtype:
  """That of a product: `dtype`, or else as the operands are."""
  return jnp.dtype(jnp.result_type(x, w) if dtype is None else dtype)
