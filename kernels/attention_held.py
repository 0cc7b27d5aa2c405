"""Storage formats of keys and values: int8 with a scale for each position and head, or pages behind a page table.

Both have the `shape` of the array [B, S, G, K] that they stand for, and `attention` takes them as keys and values.

Letters: B rows, S key positions, G key heads, K head size, P pages of C positions, N pages of a row.
"""

import jax
import jax.numpy as jnp
from flax import struct

MOST = 127                            # the largest code


@struct.dataclass
class Coded:
  """codes * scale: int8, with a float32 scale for each vector of K numbers (vector-wise, Dettmers et al. 2022)."""

  codes: jax.Array                    # i8[.., K]
  scale: jax.Array                    # f32[..]

  @property
  def shape(self) -> tuple[int, ...]:
    return self.codes.shape

  @property
  def ndim(self) -> int:
    return self.codes.ndim

  def swapaxes(self, i: int, j: int) -> 'Coded':
    """The same with two dimensions swapped, neither of them the last."""
    return Coded(self.codes.swapaxes(i, j), self.scale.swapaxes(i, j))


@struct.dataclass
class Paged:
  """Paged: position s of row b is in page table[b, s // C] at s % C. Table entries outside of all ranges are not used."""

  pages_PCGK: jax.Array | Coded
  table_BN: jax.Array                 # i32

  @property
  def shape(self) -> tuple[int, ...]:
    (rows, pages), (_, size, *rest) = self.table_BN.shape, self.pages_PCGK.shape
    return rows, pages * size, *rest

  @property
  def ndim(self) -> int:
    return self.pages_PCGK.ndim


Held = jax.Array | Coded | Paged


def coded(x: jax.Array) -> Coded:
  """x in int8: each vector along the last dimension has a scale that makes its largest magnitude 127; rounded to nearest."""
  x = x.astype(jnp.float32)
  scale = jnp.abs(x).max(-1) / MOST
  codes = jnp.round(x / jnp.where(scale > 0, scale, 1)[..., None])
  return Coded(codes.astype(jnp.int8), scale)


def whole(held: Held, dtype: jnp.dtype | type | str) -> jax.Array:
  """The array [B, S, G, K]: an array unchanged, other formats decoded to `dtype`."""
  if isinstance(held, Coded):
    return (held.codes * held.scale[..., None]).astype(dtype)
  if isinstance(held, Paged):
    pages_BNCGK = jax.tree.map(lambda pages: pages[held.table_BN], held.pages_PCGK)
    return whole(jax.tree.map(lambda x: x.reshape(x.shape[0], -1, *x.shape[3:]), pages_BNCGK), dtype)
  return held
