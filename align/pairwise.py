"""What the objectives over pairs share: both sides as rows of one forward pass, and means over pairs.

A batch of pairs holds tokens i32[B, 2, L], segments i32[B, 2, L] (1 on a side's tokens, 0 on padding after them), mask
f32[B, 2, L] (1 on its answers), margin and label f32[B]; the chosen side is first. A pair without tokens weighs nothing.

Letters: B pairs, P the two sides, R = 2B rows, L positions.
"""

import jax
import jax.numpy as jnp

from train.types import Batch, Loss, Mean


def rows(pairs_BPL: jax.Array) -> jax.Array:
  """[B, 2, L] as rows [2B, L]: the two sides of a pair stay beside each other, on one device."""
  return pairs_BPL.reshape(-1, pairs_BPL.shape[-1])


def pairs(rows_R: jax.Array) -> jax.Array:
  """One number per row, [2B], as pairs [B, 2]: the reverse of `rows`."""
  return rows_R.reshape(-1, 2)


def weights(batch: Batch) -> jax.Array:
  """f32[B]: 1 for a pair, 0 for a row of zeros that only fills up the batch."""
  return jnp.all(batch['segments'][:, :, 0] > 0, 1).astype(jnp.float32)


def mean(values_B: jax.Array, weights_B: jax.Array) -> Mean:
  """The weighted mean over pairs; one of weight 0 adds nothing, not even a NaN."""
  return Mean(jnp.where(weights_B > 0, values_B * weights_B, 0.0).sum(), weights_B.sum())


def agreement(rewards_BP: jax.Array) -> jax.Array:
  """f32[B]: 1 where the chosen side has the larger reward, 0 where it has the smaller, 1/2 for a tie."""
  return 0.5 * (1.0 + jnp.sign(rewards_BP[:, 0] - rewards_BP[:, 1]))


def penalties(aux: dict[str, jax.Array], weights_B: jax.Array) -> dict[str, Mean]:
  """The router's penalties f32[R], averaged over the two sides of each pair, then over pairs."""
  return {name: mean(pairs(penalty_R).mean(1), weights_B) for name, penalty_R in aux.items()}


def with_penalties(objective: Mean, metrics: dict[str, Mean], extra: dict[str, Mean]) -> Loss:
  """The loss with the router's penalties `extra` added to its objective and shown among its metrics."""
  total = objective.total + sum(penalty.total for penalty in extra.values())
  return Loss(Mean(total, objective.weight), metrics | extra)
