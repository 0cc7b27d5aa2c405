"""Block bounds for fused attention: which blocks of keys a block of queries attends to, and which blocks of queries to keys.

A kernel loops over the blocks [start, stop) and skips all others; in the blocks [whole, past) every row attends to every key,
so no mask is needed. XLA computes these small arrays from the ranges before the kernel runs.

Letters: B rows, L query positions, N blocks of T queries, M blocks of C keys.
"""

import jax
import jax.numpy as jnp

FAR = 2**30                           # beyond every key


def within(first_BL: jax.Array, last_BL: jax.Array, keys: int) -> tuple[jax.Array, jax.Array]:
  """Both arrays as i32, clipped to [0, keys], as kernels take them."""
  return jnp.maximum(first_BL, 0).astype(jnp.int32), jnp.minimum(last_BL, keys).astype(jnp.int32)


def key_bounds(first_BL: jax.Array, last_BL: jax.Array, t: int, c: int) -> jax.Array:
  """i32[B, N, 4]: the blocks of c keys (start, whole, past, stop) that each block of t query rows loops over."""
  least_BN, most_BN, late_BN, early_BN = _extent(first_BL, last_BL, t)
  start, stop = least_BN // c, -(-most_BN // c)
  whole = jnp.clip(-(-late_BN // c), start, stop)
  return jnp.stack([start, whole, jnp.clip(early_BN // c, whole, stop), stop], -1)


def query_bounds(first_BL: jax.Array, last_BL: jax.Array, keys: int, t: int, c: int) -> jax.Array:
  """i32[B, M, 4]: the blocks of t query rows (start, whole, past, stop) that each block of c keys loops over.

  [start, stop) goes from the first to the last block of queries that attends to any of the keys, those between included;
  [whole, past) is the first run of blocks all of whose rows attend to all of the keys.
  """
  least_BN, most_BN, late_BN, early_BN = (x[:, None] for x in _extent(first_BL, last_BL, t))
  begin_M1 = jnp.arange(0, keys, c)[:, None]
  touch_BMN = (least_BN < begin_M1 + c) & (most_BN > begin_M1)
  full_BMN = (late_BN <= begin_M1) & (early_BN >= begin_M1 + c)
  index_N = jnp.arange(touch_BMN.shape[2])
  stop = jnp.max(jnp.where(touch_BMN, index_N + 1, 0), 2)
  start = jnp.minimum(jnp.min(jnp.where(touch_BMN, index_N, FAR), 2), stop)
  whole = jnp.minimum(jnp.min(jnp.where(full_BMN, index_N, FAR), 2), stop)
  after = ~full_BMN & (index_N >= whole[..., None])
  past = jnp.minimum(jnp.min(jnp.where(after, index_N, FAR), 2), stop)
  return jnp.stack([start, whole, past, stop], -1).astype(jnp.int32)


def _extent(first_BL, last_BL, t):
  """i32[B, N] each, of every block of t rows: the least `first` and greatest `last` of rows whose range is not empty, then the
  greatest `first` and least `last` of all. An empty range counts as one that covers no block in full."""
  short = -first_BL.shape[1] % t
  first, last = (jnp.pad(x, ((0, 0), (0, short))).reshape(x.shape[0], -1, t) for x in (first_BL, last_BL))
  live = first < last
  least, most = jnp.where(live, first, FAR).min(2), jnp.where(live, last, 0).max(2)
  return jnp.minimum(least, most), most, jnp.where(live, first, FAR).max(2), jnp.where(live, last, 0).min(2)
