"""The KV cache: a static buffer of keys and values per layer.

A buffer holds numbers in the dtype of the matmuls, or int8 codes with a scale for each vector (kernels.attention_held): about
half of bfloat16's memory and a quarter of float32's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from kernels.attention_held import Coded, coded
from model.config import Decoder, Holding
from model.sharding import pin


class Layer(NamedTuple):
  """Keys and values of one layer. The positions of one head lie together, which is how decoding reads them."""

  k_BGSK: jax.Array | Coded
  v_BGSK: jax.Array | Coded


@struct.dataclass
class Cache:
  """The caches of B rows: slots [0, length_b) of row b are filled, in order of position, all of one document."""

  layers: tuple[Layer, ...]
  lengths_B: jax.Array                # i32

  @property
  def slots(self) -> int:
    """How many positions there is room for."""
    return self.layers[0].k_BGSK.shape[2]


def empty(config: Decoder, batch: int, length: int, holding: Holding | None = None) -> Cache:
  """Room for `length` positions of `batch` rows, in the dtype of the matmuls or as `holding` says."""
  shape = (batch, config.attention.kv_heads, length, config.attention.head_size)

  def zeros(shape: tuple[int, ...], dtype: str) -> jax.Array:
    return pin(jnp.zeros(shape, dtype), 'batch', 'heads', *(None for _ in shape[2:]))

  def buffer() -> jax.Array | Coded:
    return zeros(shape, config.compute_dtype) if holding is None else Coded(zeros(shape, 'int8'), zeros(shape[:3], 'float32'))

  return Cache(tuple(Layer(buffer(), buffer()) for _ in range(config.layers)), jnp.zeros(batch, jnp.int32))


def write(layer: Layer, k_BLGK: jax.Array, v_BLGK: jax.Array, starts_B: jax.Array) -> Layer:
  """The layer with L new positions in the slots from `starts_B` on. There must be room for all L, padding included."""
  if jax.default_backend() != 'cpu':
    return _written(layer, k_BLGK, v_BLGK, starts_B)
  # XLA's CPU backend would write once for the cache and once more for those who read it, into copies of all of it. It does
  # not look into a branch, though this one is always taken: a step over 1,024 slots takes 0.64 of the time.
  return jax.lax.cond(starts_B.min() >= 0, _written, lambda layer, *_: layer, layer, k_BLGK, v_BLGK, starts_B)


def _written(layer: Layer, k_BLGK: jax.Array, v_BLGK: jax.Array, starts_B: jax.Array) -> Layer:
  def put(buffer_BGS: jax.Array, new_BGL: jax.Array) -> jax.Array:
    return jax.vmap(lambda row, new, start: jax.lax.dynamic_update_slice(row, new, (0, start, *(0 for _ in row.shape[2:]))))(
      buffer_BGS, new_BGL.astype(buffer_BGS.dtype), starts_B)

  def written(buffer: jax.Array | Coded, new_BLGK: jax.Array) -> jax.Array | Coded:
    new_BGLK = new_BLGK.swapaxes(1, 2)
    return jax.tree.map(put, buffer, coded(new_BGLK) if isinstance(buffer, Coded) else new_BGLK)

  return Layer(written(layer.k_BGSK, k_BLGK), written(layer.v_BGSK, v_BLGK))


def grow(cache: Cache, length: int) -> Cache:
  """The same cache with room for `length` positions."""
  def longer(x_BGS: jax.Array) -> jax.Array:
    return jnp.pad(x_BGS, ((0, 0), (0, 0), (0, length - cache.slots), *((0, 0) for _ in x_BGS.shape[3:])))

  return Cache(jax.tree.map(longer, cache.layers), cache.lengths_B)


def resize(cache: Cache, length: int) -> Cache:
  """The same cache with room for `length` positions, which may be less: rows that are longer lose their ends."""
  return grow(Cache(jax.tree.map(lambda x_BGS: x_BGS[:, :, :length], cache.layers), cache.lengths_B), length)


def rows(cache: Cache, rows_B: jax.Array) -> Cache:
  """The cache of these rows, in this order; a row may be taken several times."""
  return jax.tree.map(lambda x: x[rows_B], cache)
