"""Attention in a few lines, on all scores at once: the reference that the fast implementations are tested against.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size.
"""

import jax
import jax.numpy as jnp

from kernels.ranges import Ranges


def reference(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, ranges: Ranges, *, scale: float,
              softcap: float | None) -> jax.Array:
  """softmax(q k) v over each row's range: [B, L, H, K] in q's dtype, computed in float32. Holds [B, H, L, S]."""
  batch, length, heads, _ = q_BLHK.shape
  q, k, v = (x.astype(jnp.float32) for x in (q_BLHK, k_BSGK, v_BSGK))
  q_BLGRK = q.reshape(batch, length, k.shape[2], -1, q.shape[3])
  scores = scale * jnp.einsum('BLGRK,BSGK->BGRLS', q_BLGRK, k)
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  seen = ranges.seen(k.shape[1])[:, None, None]
  top = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True, initial=-1e30, where=seen))
  weights = jnp.exp(jnp.where(seen, scores - top, -jnp.inf))
  total = weights.sum(-1, keepdims=True)
  weights /= jnp.where(total > 0, total, 1)
  out_BLGRK = jnp.einsum('BGRLS,BSGK->BLGRK', weights, v)
  return out_BLGRK.reshape(batch, length, heads, -1).astype(q_BLHK.dtype)
