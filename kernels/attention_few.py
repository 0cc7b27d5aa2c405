"""Attention of few queries over many keys in plain XLA, for decoding on a CPU: reads each key and value once, copies none.

XLA's CPU backend packs one operand of a matmul into blocks first. With the keys as the left operand that is the (few) queries;
the scores are transposed afterwards, so that maxima and sums run along vector lanes. Measured on two cores with AVX-512
(SmolLM2-135M, jax 0.10.2, float32, 16 rows): a decoding step takes 0.68 of the time of `kernels.attention_reference` with a
cache of 256 positions, and 0.87 with 64.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size,
N = L R rows of a key head.
"""

import jax
import jax.numpy as jnp

from kernels.ranges import Ranges

BATCH = ((0, 1), (0, 1))              # batch dimensions of the matmuls: rows and key heads


def few(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, ranges: Ranges, *, scale: float,
        softcap: float | None) -> jax.Array:
  """softmax(q k) v over each row's range: [B, L, H, K] in q's dtype, computed in float32. Holds [B, H, L, S]."""
  (batch, length, heads, size), groups = q_BLHK.shape, k_BSGK.shape[2]
  k_BGSK, v_BGSK = (x.astype(jnp.float32).swapaxes(1, 2) for x in (k_BSGK, v_BSGK))
  q_BLGRK = q_BLHK.astype(jnp.float32).reshape(batch, length, groups, -1, size)
  q_BGKN = q_BLGRK.transpose(0, 2, 4, 1, 3).reshape(batch, groups, size, -1)
  x_BGSN = jax.lax.dot_general(k_BGSK, q_BGKN, (((3,), (2,)), BATCH))
  x_BGNS = scale * jax.lax.optimization_barrier(x_BGSN).swapaxes(2, 3)        # else XLA would transpose the matmul instead
  if softcap is not None:
    x_BGNS = softcap * jnp.tanh(x_BGNS / softcap)
  first, last = (jnp.repeat(x_BL, heads // groups, 1)[:, None, :, None] for x_BL in (ranges.first_BL, ranges.last_BL))
  keys_S = jnp.arange(k_BSGK.shape[1])
  x_BGNS = jnp.where((keys_S >= first) & (keys_S < last), x_BGNS, -jnp.inf)
  top_BGN1 = jax.lax.stop_gradient(x_BGNS.max(-1, keepdims=True))
  exps_BGNS = jnp.exp(x_BGNS - jnp.where(top_BGN1 > -jnp.inf, top_BGN1, 0))
  total_BGN1 = exps_BGNS.sum(-1, keepdims=True)
  out_BGNK = jax.lax.dot_general(exps_BGNS, v_BGSK, (((3,), (2,)), BATCH)) / jnp.where(total_BGN1 > 0, total_BGN1, 1)
  out_BLGRK = out_BGNK.reshape(batch, groups, length, -1, size).transpose(0, 2, 1, 3, 4)
  return out_BLGRK.reshape(batch, length, heads, size).astype(q_BLHK.dtype)
