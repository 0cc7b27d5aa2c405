"""Attention by `jax.nn.dot_product_attention`: in plain XLA, and by cuDNN's fused kernel on NVIDIA GPUs.

cuDNN knows causal masks and sliding windows. Other ranges would need a dense bias, at a sixth of its speed, so for those
`cudnn_refusal` refuses; the XLA implementation holds every score anyway and takes a mask.

Letters: B rows, L query positions, S key positions, G key heads, H query heads, K head size.
"""

import jax
import jax.numpy as jnp

from kernels.attention_call import Call
from kernels.ranges import Ranges


def xla_refusal(call: Call) -> str | None:
  """Why `xla` cannot do the call, or None."""
  return None if call.softcap is None else 'it has no soft cap'


def xla(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, ranges: Ranges, *, scale: float,
        softcap: float | None) -> jax.Array:
  """softmax(q k) v over each row's range: [B, L, H, K] in q's dtype. Holds [B, H, L, S]."""
  seen_BLS = ranges.seen(k_BSGK.shape[1])
  k_BSGK, v_BSGK = k_BSGK.astype(q_BLHK.dtype), v_BSGK.astype(q_BLHK.dtype)
  out = jax.nn.dot_product_attention(q_BLHK, k_BSGK, v_BSGK, mask=seen_BLS[:, None], scale=scale, implementation='xla')
  return jnp.where(seen_BLS.any(-1)[..., None, None], out, 0)


def cudnn_refusal(call: Call) -> str | None:
  """Why `cudnn` cannot do the call, or None: a function of the call alone, so that it can be tested without a GPU."""
  kind = call.kind
  largest = 256 if call.capability >= 9 else 128
  facts = {
    f'it runs on NVIDIA GPUs, not on {call.platform}': call.platform != 'gpu',
    f'it takes float16 and bfloat16, not {call.dtype}': call.dtype not in ('float16', 'bfloat16'),
    'it has no soft cap': call.softcap is not None,
    'these ranges are no band (packed, cached, prefix) and would become a dense bias': not kind.exact,
    'it has windows to the left of causal rows only': not (kind.causal or kind.before is kind.after is None),
    f'{call.queries} queries of {call.keys} keys are no square': kind.causal and call.queries != call.keys,
    f'{call.queries} queries or {call.keys} keys are odd, and it has no gradient for those': call.queries % 2 or call.keys % 2,
    f'head size {call.head_size} is no multiple of 8 up to {largest}': call.head_size % 8 or call.head_size > largest,
  }
  return next((why for why, holds in facts.items() if holds), None)


def cudnn(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, ranges: Ranges, *, scale: float,
          softcap: float | None) -> jax.Array:
  """softmax(q k) v over each row's band: [B, L, H, K] in q's dtype, in memory that grows with L."""
  kind = ranges.kind
  window = None if kind.before is None else (kind.before, 0)
  return jax.nn.dot_product_attention(q_BLHK, k_BSGK, v_BSGK, scale=scale, is_causal=kind.causal,
                                      local_window_size=window, implementation='cudnn')
