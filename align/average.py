"""How the losses of tokens become one number: the mean over tokens, over answers, or by a constant (GRPO, DAPO, Dr. GRPO).

Each gives a `Mean`, a sum over rows and its weight, so that splitting a batch changes nothing.

Letters: B rows, T positions of answers.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from model.errors import demand
from train.types import Mean


@dataclass(frozen=True)
class PerToken:
  """The mean over all tokens of all answers (DAPO, Yu et al. 2025): long answers count for more."""

  def __call__(self, loss_BT: jax.Array, mask_BT: jax.Array) -> Mean:
    return Mean(_kept(loss_BT, mask_BT).sum(), mask_BT.astype(jnp.float32).sum())


@dataclass(frozen=True)
class PerAnswer:
  """The mean over each answer's tokens, then over answers (GRPO, Shao et al. 2024): tokens of short answers count for more."""

  def __call__(self, loss_BT: jax.Array, mask_BT: jax.Array) -> Mean:
    lengths_B = mask_BT.astype(jnp.float32).sum(1)
    return Mean((_kept(loss_BT, mask_BT).sum(1) / jnp.maximum(lengths_B, 1.0)).sum(), (lengths_B > 0).sum().astype(jnp.float32))


@dataclass(frozen=True)
class PerConstant:
  """Each answer's sum divided by a constant, then the mean over answers (Dr. GRPO, Liu et al. 2025): no length is favoured."""

  length: int                         # such as the most tokens that an answer may have

  def __post_init__(self):
    demand(self.length > 0, 'PerConstant.length', self.length, 'it divides the sum of an answer', 'raise it')

  def __call__(self, loss_BT: jax.Array, mask_BT: jax.Array) -> Mean:
    answers = (mask_BT > 0).any(1).sum().astype(jnp.float32)
    return Mean(_kept(loss_BT, mask_BT).sum(), answers * self.length)


Average = PerToken | PerAnswer | PerConstant


def _kept(loss_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """The loss where the mask counts it, else 0, whatever stands there, even a NaN."""
  return jnp.where(mask_BT > 0, loss_BT.astype(jnp.float32) * mask_BT, 0.0)
