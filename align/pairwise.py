"""What losses over pairs share: both sides as rows of one forward pass, and what is counted of each pair.

A batch of pairs holds tokens i32[B, 2, L], segments i32[B, 2, L] (1 on a side's tokens, 0 on padding after them), mask
f32[B, 2, L] (1 on its answers), margin and label f32[B]; the chosen side is first. A pair without tokens weighs nothing.

Letters: B pairs, P the two sides, R = 2B rows, L positions.
"""

import jax
import jax.numpy as jnp

from train.types import Batch, Mean


def rows(pairs_BPL: jax.Array) -> jax.Array:
  """[R, L] of [B, 2, L]: the two sides of a pair stay beside each other, on one device."""
  return pairs_BPL.reshape(-1, pairs_BPL.shape[-1])


def pairs(rows_R: jax.Array) -> jax.Array:
  """[B, 2] of one number a row [R]."""
  return rows_R.reshape(-1, 2)


def weights(batch: Batch) -> jax.Array:
  """1 for each pair, 0 for one that only fills the batch up, f32[B]."""
  return jnp.all(batch['segments'][:, :, 0] > 0, 1).astype(jnp.float32)


def mean(values_B: jax.Array, weights_B: jax.Array) -> Mean:
  """Over pairs; those of weight 0 cannot add even what is no number."""
  return Mean(jnp.where(weights_B > 0, values_B * weights_B, 0.0).sum(), weights_B.sum())


def agreement(rewards_BP: jax.Array) -> jax.Array:
  """1 where the chosen side has the larger reward, 0 where it has the smaller, 1/2 for a tie, [B]."""
  return 0.5 * (1.0 + jnp.sign(rewards_BP[:, 0] - rewards_BP[:, 1]))


def penalties(aux: dict[str, jax.Array], weights_B: jax.Array) -> dict[str, Mean]:
  """The router's penalties [R] of each pair, the mean of its sides: they are of a row, so neither side enters the other's."""
  return {name: mean(pairs(penalty_R).mean(1), weights_B) for name, penalty_R in aux.items()}
