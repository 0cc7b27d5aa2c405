"""How far a policy is from its reference, estimated from sampled tokens, and what holds it near.

With d = log p - log p_ref at a sampled token, all three have the KL as their mean under the policy's own samples
(Schulman 2020, "Approximating KL divergence"). As a reward use k1, which is unbiased in each term. As a loss to be
differentiated, k1 pulls nowhere on average, k2 gives the gradient of KL(policy || reference), and k3 that of
KL(reference || policy).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from model.errors import demand


def k1(logp: jax.Array, ref: jax.Array) -> jax.Array:
  """d, nats, any shape: unbiased, and of both signs."""
  return logp.astype(jnp.float32) - ref.astype(jnp.float32)


def k2(logp: jax.Array, ref: jax.Array) -> jax.Array:
  """d^2 / 2, nats, any shape: biased, never negative."""
  return 0.5 * jnp.square(k1(logp, ref))


def k3(logp: jax.Array, ref: jax.Array) -> jax.Array:
  """exp(-d) - 1 + d, nats, any shape: unbiased, never negative. The exponent is held within 20 nats."""
  gap = k1(logp, ref)
  return jnp.expm1(jnp.clip(-gap, -20.0, 20.0)) + gap


@dataclass(frozen=True)
class Fixed:
  """A weight of the KL that stays as it is."""

  beta: float = 0.05

  def __post_init__(self):
    demand(self.beta >= 0, 'Fixed.beta', self.beta, 'it weighs a distance', 'use 0 or more')

  def next(self, beta: float, kl: float, samples: int) -> float:
    """The weight for the next step."""
    return beta


@dataclass(frozen=True)
class Adaptive:
  """A weight that rises while the KL is above its target and falls while it is below. Ziegler et al. 2019, section 2.2."""

  beta: float = 0.2                   # to begin with
  target: float = 6.0                 # nats a sample: the sum over its tokens
  horizon: int = 10_000               # samples over which a lasting error of a fifth doubles the weight, about
  most: float = 0.2                   # of the relative error, either way

  def __post_init__(self):
    for field in ('beta', 'target', 'horizon', 'most'):
      demand(getattr(self, field) > 0, f'Adaptive.{field}', getattr(self, field), 'it must be above zero', 'raise it')

  def next(self, beta: float, kl: float, samples: int) -> float:
    """The weight after a step of so many samples whose KL, summed over tokens, was `kl` nats on average."""
    error = min(max(kl / self.target - 1.0, -self.most), self.most)
    return beta * (1.0 + error * samples / self.horizon)


Controller = Fixed | Adaptive
