"""The MLP of a block: gated or plain, two matmuls."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.config import Decoder, Gated, Plain
from model.linear import Dense
from model.sharding import pin

ACTIVATIONS = {
  'silu': jax.nn.silu,
  'gelu': lambda x: jax.nn.gelu(x, approximate=False),
  'gelu_tanh': lambda x: jax.nn.gelu(x, approximate=True),
  'relu': jax.nn.relu,
  'relu2': lambda x: jnp.square(jax.nn.relu(x)),
}


def up_shape(config: Gated | Plain) -> tuple[tuple[int, ...], tuple[str, ...]]:
  """The shape and the logical names of what the first matmul makes: (2, F) with a gate, else (F,)."""
  return ((2, config.hidden), ('gates', 'mlp')) if isinstance(config, Gated) else ((config.hidden,), ('mlp',))


def activate(config: Gated | Plain, h: jax.Array) -> jax.Array:
  """[..., 2, F] or [..., F] -> [..., F]."""
  activation = ACTIVATIONS[config.activation]
  return activation(h[..., 0, :]) * h[..., 1, :] if isinstance(config, Gated) else activation(h)


class MLP(nn.Module):
  """[B, L, D] -> [B, L, D]."""

  config: Decoder
  mlp: Gated | Plain

  @nn.compact
  def __call__(self, x_BLD: jax.Array) -> jax.Array:
    config, mlp = self.config, self.mlp
    shape, names = up_shape(mlp)
    up = Dense((config.width,), shape, ('embed', *names), mlp.bias, config.compute_dtype, name='up')
    down = Dense((mlp.hidden,), (config.width,), ('mlp', 'embed'), mlp.bias, config.compute_dtype, name='down')
    h = pin(up(x_BLD), 'batch', 'length', *names)
    return pin(down(activate(mlp, h)), 'batch', 'length', None)
