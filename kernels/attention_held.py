"""Keys and values as caches hold them: in int8 with a scale for each position and head, or in pages that a table names.

Both have the shape of the array [B, S, G, K] that they stand for, and go wherever `attention` takes keys and values.

Letters: B rows, S key positions, G key heads, K head size, P pages of C positions, N pages of a row.
"""

import jax
import jax.numpy as jnp
from flax import struct

MOST = 127                            # the largest code


@struct.dataclass
class Coded:
  """codes * scale: eight bits a number, and 32 for each vector of a head. Dettmers et al. 2022 call it vector-wise."""

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
  """Position s of row b lies in the page table[b, s // C], at s % C. What no range sees may name any page."""

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
  """The nearest codes: each vector along the last dimension is scaled so that its largest number becomes 127."""
  x = x.astype(jnp.float32)
  scale = jnp.abs(x).max(-1) / MOST
  codes = jnp.round(x / jnp.where(scale > 0, scale, 1)[..., None])
  return Coded(codes.astype(jnp.int8), scale)


def whole(held: Held, dtype: jnp.dtype | type | str) -> jax.Array:
  """The array [B, S, G, K] that it stands for: an array as it is, anything else worked out in `dtype`."""
  if isinstance(held, Coded):
    return (held.codes * held.scale[..., None]).astype(dtype)
  if isinstance(held, Paged):
    pages_BNCGK = jax.tree.map(lambda pages: pages[held.table_BN], held.pages_PCGK)
    return whole(jax.tree.map(lambda x: x.reshape(x.shape[0], -1, *x.shape[3:]), pages_BNCGK), dtype)
  return held
