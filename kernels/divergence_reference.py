"""What `kernels.divergence` computes, in a few lines on whole logits: for tests, in whatever precision it is given.

Letters: B rows, L positions, V vocabulary, K stored ids, J = K + 1 or K outcomes.
"""

import jax
import jax.numpy as jnp

from kernels.divergence import TaughtSums


def kl(p: jax.Array, q: jax.Array) -> jax.Array:
  """KL(p || q) over the last axis, nats; terms with p = 0 are 0."""
  return jnp.where(p > 0, p * (jnp.log(jnp.where(p > 0, p, 1)) - jnp.log(q)), 0).sum(-1)


def divergence(p: jax.Array, q: jax.Array, beta: float) -> jax.Array:
  """The divergence of a student q from a teacher p over the last axis, nats."""
  if beta in (0, 1):
    return kl(q, p) if beta else kl(p, q)
  m = beta * p + (1 - beta) * q
  return beta * kl(p, m) + (1 - beta) * kl(q, m)


def buckets(p_BLV: jax.Array, ids_BLK: jax.Array, tail: bool) -> jax.Array:
  """[B, L, J]: with `tail` the probabilities of these ids and of all others together; else of these, renormalised."""
  some_BLK = jnp.take_along_axis(p_BLV, ids_BLK, -1)
  if not tail:
    return some_BLK / some_BLK.sum(-1, keepdims=True)
  inside_BLV = jax.nn.one_hot(ids_BLK, p_BLV.shape[-1], dtype=bool).any(-2)
  return jnp.concatenate([some_BLK, jnp.where(inside_BLV, 0, p_BLV).sum(-1, keepdims=True)], -1)


def taught(logits_BLV: jax.Array, teacher_BLV: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array, beta: float,
           temperature: float, hard: float, ids_BLK: jax.Array | None = None, tail: bool = True) -> TaughtSums:
  """The sums, from the logits of both models after their soft caps; given ids, as if only those had been stored."""
  p, q = (jax.nn.softmax(x / temperature, -1) for x in (teacher_BLV, logits_BLV))
  if ids_BLK is not None:
    p, q = buckets(p, ids_BLK, tail), buckets(q, ids_BLK, tail)
  soft_BL = temperature**2 * divergence(p, q, beta)
  nll_BL = -jnp.take_along_axis(jax.nn.log_softmax(logits_BLV, -1), targets_BL[..., None], -1)[..., 0]
  best_BL = logits_BLV.argmax(-1)
  each = ((1 - hard) * soft_BL + hard * nll_BL, soft_BL, nll_BL, best_BL == targets_BL, best_BL == teacher_BLV.argmax(-1))
  return TaughtSums(*((weights_BL * value).sum() for value in each))
