"""The keys and values of what was read, so that each next token costs one position: a static buffer per layer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from model.config import Decoder
from model.sharding import pin


class Layer(NamedTuple):
  """Keys and values of one layer. The positions of one head lie together, which is how decoding reads them."""

  k_BGSK: jax.Array
  v_BGSK: jax.Array


@struct.dataclass
class Cache:
  """What B rows have read: slots [0, length_b) of row b are filled, in order of position, all of one document."""

  layers: tuple[Layer, ...]
  lengths_B: jax.Array                # i32

  @property
  def slots(self) -> int:
    """How many positions there is room for."""
    return self.layers[0].k_BGSK.shape[2]


def empty(config: Decoder, batch: int, length: int) -> Cache:
  """Room for `length` positions of `batch` rows, in the dtype of the matmuls."""
  shape = (batch, config.attention.kv_heads, length, config.attention.head_size)

  def zeros() -> jax.Array:
    return pin(jnp.zeros(shape, config.compute_dtype), 'batch', 'heads', None, None)

  return Cache(tuple(Layer(zeros(), zeros()) for _ in range(config.layers)), jnp.zeros(batch, jnp.int32))


def write(layer: Layer, k_BLGK: jax.Array, v_BLGK: jax.Array, starts_B: jax.Array) -> Layer:
  """The layer with L new positions in the slots from `starts_B` on. There must be room for all L, padding included."""

  def put(buffer_BGSK: jax.Array, new_BLGK: jax.Array) -> jax.Array:
    new_BGLK = new_BLGK.astype(buffer_BGSK.dtype).swapaxes(1, 2)
    return jax.vmap(lambda row, new, start: jax.lax.dynamic_update_slice(row, new, (0, start, 0)))(
      buffer_BGSK, new_BGLK, starts_B)

  return Layer(put(layer.k_BGSK, k_BLGK), put(layer.v_BGSK, v_BLGK))


def grow(cache: Cache, length: int) -> Cache:
  """The same cache with room for `length` positions."""
  more = ((0, 0), (0, 0), (0, length - cache.slots), (0, 0))
  return Cache(jax.tree.map(lambda x: jnp.pad(x, more), cache.layers), cache.lengths_B)
