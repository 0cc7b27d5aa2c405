"""Norms, computed in float32 whatever flows in."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.config import LayerNorm, RMSNorm
from model.linear import weight


class Norm(nn.Module):
  """The normalised x[..., D], in the dtype of x. `axis` is the logical name of D."""

  config: RMSNorm | LayerNorm
  axis: str = 'width'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    size, names = x.shape[-1:], (self.axis,)
    x_f32 = x.astype(jnp.float32)
    if isinstance(self.config, RMSNorm):
      scale = weight(self, 'scale', size, names).astype(jnp.float32) + self.config.offset
      inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x_f32), -1, keepdims=True) + self.config.eps)
      return (x_f32 * inverse * scale).astype(x.dtype)
    scale = weight(self, 'scale', size, names)
    centred = x_f32 - jnp.mean(x_f32, -1, keepdims=True)
    y = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + self.config.eps) * scale
    if self.config.bias:
      y = y + weight(self, 'bias', size, names)
    return y.astype(x.dtype)
