"""Attention masks as ranges: query row i attends to the keys [first_i, last_i), and only these two numbers are stored.

Causal masks, packed documents, sliding windows, prefixes, padding, partly filled caches, and the intersections of all these are
ranges. They take O(L) memory where a mask takes O(L S), and tell a kernel which blocks it may skip. A row "sees" a key if it
may attend to it.

Letters: B rows of a batch, L query positions, S key positions.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct


@dataclass(frozen=True)
class Kind:
  """What is known of ranges while tracing: a band of keys around each query, outside of which none is seen.

  Row i sees no key before i - before and none after i + after (None: no such bound). `exact`: it sees all keys of that band,
  so the arrays hold no more information and need not be read.
  """

  before: int | None = None
  after: int | None = None
  exact: bool = False

  @property
  def causal(self) -> bool:
    return self.after == 0

  @property
  def window(self) -> int | None:
    """The sliding window: how many keys a causal row sees at most, its own included. None: no limit, or not causal."""
    return None if self.before is None or not self.causal else self.before + 1

  def keys(self, start: int, stop: int, size: int) -> tuple[int, int]:
    """The keys [a, b) of `size` that the query rows [start, stop) can see at all."""
    a = 0 if self.before is None else max(0, start - self.before)
    b = size if self.after is None else min(size, stop + self.after)
    return min(a, b), b

  def within(self, start: int, stop: int, a: int, b: int) -> bool:
    """Whether all of the rows [start, stop) are known to see all of the keys [a, b)."""
    early = self.before is None or stop - 1 - self.before <= a
    late = self.after is None or b <= start + self.after + 1
    return self.exact and early and late

  def __and__(self, other: 'Kind') -> 'Kind':
    before, after = _least(self.before, other.before), _least(self.after, other.after)
    return Kind(before, after, self.exact and other.exact)


def _least(a: int | None, b: int | None) -> int | None:
  return min((x for x in (a, b) if x is not None), default=None)


@struct.dataclass
class Ranges:
  """Query row i of batch row b sees the keys [first, last) and no others; where that is empty its output is 0."""

  first_BL: jax.Array                 # i32
  last_BL: jax.Array                  # i32, exclusive
  kind: Kind = struct.field(pytree_node=False)

  def seen(self, keys: int) -> jax.Array:
    """bool[B, L, S]: the dense mask over S = `keys` keys."""
    index_S = jnp.arange(keys)
    return (index_S >= self.first_BL[..., None]) & (index_S < self.last_BL[..., None])

  def __and__(self, other: 'Ranges') -> 'Ranges':
    """The intersection: a row sees the keys that it sees in both."""
    first, last = jnp.maximum(self.first_BL, other.first_BL), jnp.minimum(self.last_BL, other.last_BL)
    return Ranges(first, last, self.kind & other.kind)


def causal_ranges(batch: int, length: int, window: int | None = None) -> Ranges:
  """Each row sees itself and all rows before it, or with `window` that many keys at most, its own included.

  Raises: ValueError for a window below 1.
  """
  index_BL = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
  reach = _reach(window)
  first_BL = jnp.zeros_like(index_BL) if reach is None else jnp.maximum(index_BL - reach, 0)
  return Ranges(first_BL, index_BL + 1, Kind(reach, 0, exact=True))


def packed_ranges(segments_BL: jax.Array, causal: bool = True, window: int | None = None) -> Ranges:
  """Each row sees its own document: all of it, or if causal up to itself. Segment 0 is padding and sees nothing.

  segments_BL: i32; a document is a run of equal ids. With a window, a row sees `window - 1` keys at most before it and, unless
  causal, after it.

  Raises: ValueError for a window below 1.
  """
  index_BL = jnp.broadcast_to(jnp.arange(segments_BL.shape[1], dtype=jnp.int32), segments_BL.shape)
  edge = segments_BL[:, 1:] != segments_BL[:, :-1]
  starts, ends = jnp.pad(edge, ((0, 0), (1, 0)), constant_values=True), jnp.pad(edge, ((0, 0), (0, 1)))
  first_BL = jax.lax.cummax(jnp.where(starts, index_BL, 0), axis=1)
  length = segments_BL.shape[1]
  last_BL = index_BL + 1 if causal else jax.lax.cummin(jnp.where(ends, index_BL + 1, length), axis=1, reverse=True)
  reach = _reach(window)
  if reach is not None:
    first_BL, last_BL = jnp.maximum(first_BL, index_BL - reach), jnp.minimum(last_BL, index_BL + reach + 1)
  return Ranges(first_BL, jnp.where(segments_BL == 0, first_BL, last_BL), Kind(reach, 0 if causal else reach))


def prefix_ranges(prefix_B: jax.Array, length: int) -> Ranges:
  """Prefix-LM: each row sees the first `prefix` keys, i32[B], and itself and all rows before it."""
  causal = causal_ranges(prefix_B.shape[0], length)
  return Ranges(causal.first_BL, jnp.maximum(causal.last_BL, prefix_B[:, None]), Kind())


def cached_ranges(starts_B: jax.Array, seen_BL: jax.Array, window: int | None = None) -> Ranges:
  """For L new rows of a KV cache: row i is in slot starts + i and sees the slots up to its own; padding sees nothing.

  starts_B: i32, how many slots were filled before; seen_BL: bool, False where a new row is padding.

  Raises: ValueError for a window below 1.
  """
  slot_BL = starts_B[:, None] + jnp.arange(seen_BL.shape[1], dtype=jnp.int32)
  reach = _reach(window)
  first_BL = jnp.zeros_like(slot_BL) if reach is None else jnp.maximum(slot_BL - reach, 0)
  return Ranges(first_BL, jnp.where(seen_BL, slot_BL + 1, first_BL), Kind())


def _reach(window: int | None) -> int | None:
  """How many keys before itself a row sees in a window of `window` keys, its own included."""
  if window is not None and window < 1:
    raise ValueError(f'a window of {window}: a row sees itself at least, so use 1 or more, or None')
  return None if window is None else window - 1
