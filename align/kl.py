"""KL(policy || reference) estimated from sampled tokens, and the weight of that KL, fixed or adaptive.

With d = log p - log p_ref at a token sampled from the policy (Schulman 2020, "Approximating KL divergence"):

        estimate             as a value              gradient of its mean, samples held fixed
    k1  d                    unbiased, any sign      none
    k2  d^2 / 2              biased, never < 0       that of KL(policy || reference)
    k3  exp(-d) - 1 + d      unbiased, never < 0     that of KL(reference || policy)

So k1 is for rewards, k3 (or k2) for losses.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from model.errors import demand


def k1(logp: jax.Array, ref: jax.Array) -> jax.Array:
  """d = log p - log p_ref, nats, f32 of any shape."""
  return logp.astype(jnp.float32) - ref.astype(jnp.float32)


def k2(logp: jax.Array, ref: jax.Array) -> jax.Array:
  """d^2 / 2, nats, f32 of any shape."""
  return 0.5 * jnp.square(k1(logp, ref))


def k3(logp: jax.Array, ref: jax.Array) -> jax.Array:
  """exp(-d) - 1 + d, nats, f32 of any shape. In the exponent d is held within 20 nats."""
  gap = k1(logp, ref)
  return jnp.expm1(jnp.clip(-gap, -20.0, 20.0)) + gap


@dataclass(frozen=True)
class Fixed:
  """A constant weight of the KL."""

  beta: float = 0.05

  def __post_init__(self):
    demand(self.beta >= 0, 'Fixed.beta', self.beta, 'it weighs a distance', 'use 0 or more')

  def next(self, beta: float, kl: float, samples: int) -> float:
    """The weight for the next iteration: the same."""
    return beta


@dataclass(frozen=True)
class Adaptive:
  """A weight of the KL that rises while the KL is above its target and falls while it is below (Ziegler et al. 2019, 2.2)."""

  beta: float = 0.2                   # to begin with
  target: float = 6.0                 # nats a sample: the sum over its tokens
  horizon: int = 10_000               # samples over which a lasting error of a fifth doubles the weight, about
  most: float = 0.2                   # of the relative error, either way

  def __post_init__(self):
    for field in ('beta', 'target', 'horizon', 'most'):
      demand(getattr(self, field) > 0, f'Adaptive.{field}', getattr(self, field), 'it must be above zero', 'raise it')

  def next(self, beta: float, kl: float, samples: int) -> float:
    """The weight after an iteration of `samples` answers whose KL, summed over tokens, was `kl` nats on average."""
    error = min(max(kl / self.target - 1.0, -self.most), self.most)
    return beta * (1.0 + error * samples / self.horizon)


Controller = Fixed | Adaptive
