"""A transformer block: attention and an MLP, in sequence or in parallel, with norms and residual connections."""

import jax
from flax import linen as nn

from model.attention import Attention, Sight
from model.cache import Layer
from model.config import Decoder, MoE, Placement
from model.mlp import MLP
from model.moe import Experts
from model.norm import Norm

Aux = dict[str, jax.Array]


class Block(nn.Module):
  """x_BLD -> x_BLD, the layer's cache, and the router's losses per row ({} without experts)."""

  config: Decoder
  implementation: str | None = None
  bare: bool = False                  # no norm before its attention

  @nn.compact
  def __call__(self, x_BLD: jax.Array, sight: Sight, layer: Layer | None = None) -> tuple[jax.Array, Layer | None, Aux]:
    attention = Attention(self.config, self.implementation, name='attention')
    y_BLD, layer = attention(self._before(x_BLD, 'attention'), sight, layer)
    after_BLD = self._after(x_BLD, y_BLD, 'attention')
    read_BLD = x_BLD if self.config.placement == 'parallel' else after_BLD
    y_BLD, aux = self._mlp(self._before(read_BLD, 'mlp'), sight.seen_BL)
    return self._after(after_BLD, y_BLD, 'mlp'), layer, aux

  def _mlp(self, x_BLD: jax.Array, seen_BL: jax.Array) -> tuple[jax.Array, Aux]:
    mlp = self.config.mlp
    if isinstance(mlp, MoE):
      return Experts(self.config, mlp, name='mlp')(x_BLD, seen_BL)
    return MLP(self.config, mlp, name='mlp')(x_BLD), {}

  def _before(self, x_BLD: jax.Array, part: str) -> jax.Array:
    reads = self.config.placement in ('post', 'output') or (self.bare and part == 'attention')
    return x_BLD if reads else self._norm(f'{part}_norm', x_BLD)

  def _after(self, x_BLD: jax.Array, y_BLD: jax.Array, part: str) -> jax.Array:
    """pre, pre_but_first and parallel: x + y. post: norm(x + y). sandwich and output: x + norm(y)."""
    placement: Placement = self.config.placement
    if placement == 'post':
      return self._norm(f'{part}_norm', x_BLD + y_BLD)
    return x_BLD + (self._norm(f'{part}_out_norm', y_BLD) if placement in ('sandwich', 'output') else y_BLD)

  def _norm(self, name: str, x_BLD: jax.Array) -> jax.Array:
    return Norm(self.config.norm, name=name)(x_BLD)
