"""How the losses of tokens become one number: whose mean it is. All three are sums over rows, so splits change nothing.

Letters: B rows, T positions of answers.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from model.errors import demand
from train.types import Mean


@dataclass(frozen=True)
class PerToken:
  """Over all tokens of all answers alike (DAPO, Yu et al. 2025): long answers count for more."""

  def __call__(self, loss_BT: jax.Array, mask_BT: jax.Array) -> Mean:
    return Mean(_kept(loss_BT, mask_BT).sum(), mask_BT.astype(jnp.float32).sum())


@dataclass(frozen=True)
class PerAnswer:
  """Over each answer's tokens, then over answers (GRPO, Shao et al. 2024): a token of a short answer counts for more."""

  def __call__(self, loss_BT: jax.Array, mask_BT: jax.Array) -> Mean:
    lengths_B = mask_BT.astype(jnp.float32).sum(1)
    return Mean((_kept(loss_BT, mask_BT).sum(1) / jnp.maximum(lengths_B, 1.0)).sum(), (lengths_B > 0).sum().astype(jnp.float32))


@dataclass(frozen=True)
class PerConstant:
  """The sum over each answer divided by a constant, then over answers (Dr. GRPO, Liu et al. 2025): no length is favoured."""

  length: int                         # such as the most tokens that an answer may have

  def __post_init__(self):
    demand(self.length > 0, 'PerConstant.length', self.length, 'it divides the sum of an answer', 'raise it')

  def __call__(self, loss_BT: jax.Array, mask_BT: jax.Array) -> Mean:
    answers = (mask_BT > 0).any(1).sum().astype(jnp.float32)
    return Mean(_kept(loss_BT, mask_BT).sum(), answers * self.length)


Average = PerToken | PerAnswer | PerConstant


def _kept(loss_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """The loss where the mask counts it; what lies elsewhere, a NaN too, is nothing."""
  return jnp.where(mask_BT > 0, loss_BT.astype(jnp.float32) * mask_BT, 0.0)
