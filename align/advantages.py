"""From rewards to advantages, as pure functions of arrays: GAE, the group baselines of GRPO and RLOO, whitening.

None of it is differentiated, and all of it happens in the source of batches: a loss may not look across rows. Means and
deviations are those of the whole (global) batch, never of a micro-batch. float32 throughout, whatever comes in: a reward
of 0.7 that is kept as an integer turns every advantage around. Arrays that should be of one shape and are not raise
AssertionError.

Letters: B rows (answers; those of one prompt follow one another), G answers of a prompt, T positions of answers.
"""

from functools import partial
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

Deviation = Literal['population', 'sample', 'none']

ALIKE = 1e-6      # of the largest: what differs by less differs by the rounding of float32 alone


class Advantages(NamedTuple):
  """What `gae` finds."""

  advantages_BT: jax.Array            # f32; 0 off the answer
  returns_BT: jax.Array               # f32: advantages plus values, which a critic is trained towards


def token_rewards(scores_B: jax.Array, kl_BT: jax.Array, mask_BT: jax.Array, *, beta: float) -> jax.Array:
  """The reward of each token, f32[B, T]: -beta * kl, plus the answer's score at its last token. Ziegler et al. 2019, eq. 2.

  `mask_BT` is 1 on the answer's tokens; elsewhere the reward is 0.
  """
  chex.assert_equal_shape([kl_BT, mask_BT])
  mask_BT = mask_BT > 0
  later_BT = jnp.cumsum(mask_BT[:, ::-1], 1)[:, ::-1]
  last_BT = mask_BT & (later_BT == 1)
  kept_BT = jnp.where(mask_BT, -beta * kl_BT.astype(jnp.float32), 0.0)
  return kept_BT + jnp.where(last_BT, scores_B.astype(jnp.float32)[:, None], 0.0)


@partial(jax.jit, static_argnames=('gamma', 'decay'))          # or each call from outside would compile its scan anew
def gae(rewards_BT: jax.Array, values_BT: jax.Array, mask_BT: jax.Array, *, gamma: float = 1.0,
        decay: float = 0.95) -> Advantages:
  """Generalised advantage estimates (Schulman et al. 2015, eq. 16), f32[B, T], and returns; `decay` is the paper's lambda.

  An answer's tokens need not lie side by side: what the mask leaves out (a tool's output, padding) is passed over. The
  value after the last token is 0: the answer is over, also where a limit ended it.
  """
  chex.assert_equal_shape([rewards_BT, values_BT, mask_BT])
  mask_BT = mask_BT > 0
  rewards_BT, values_BT = (jnp.where(mask_BT, x.astype(jnp.float32), 0.0) for x in (rewards_BT, values_BT))

  def back(carry, now):
    advantage_B, value_B = carry
    reward_B, own_B, seen_B = now
    fresh_B = reward_B + gamma * value_B - own_B + gamma * decay * advantage_B
    kept = jnp.where(seen_B, fresh_B, advantage_B), jnp.where(seen_B, own_B, value_B)
    return kept, jnp.where(seen_B, fresh_B, 0.0)

  nothing_B = jnp.zeros(len(rewards_BT))
  _, advantages_TB = jax.lax.scan(back, (nothing_B, nothing_B), (rewards_BT.T, values_BT.T, mask_BT.T), reverse=True)
  return Advantages(advantages_TB.T, advantages_TB.T + values_BT)


def whiten(x: jax.Array, mask: jax.Array, *, shift: bool = True, deviation: Deviation = 'population',
           eps: float = 1e-8) -> jax.Array:
  """(x - mean) / (deviation + eps) over what the mask keeps, 0 elsewhere: f32 of any shape. Huang et al. 2024.

  Without `shift` the mean is added again (for rewards). Where all numbers are alike, up to rounding, x - mean is taken as 0:
  else the rounding of the mean, divided by a deviation just as small, would come out as large as any advantage.
  """
  chex.assert_equal_shape([x, mask])
  kept = mask > 0
  x, count = jnp.where(kept, x.astype(jnp.float32), 0.0), kept.sum()
  mean = x.sum() / jnp.maximum(count, 1)
  spread = x.max(initial=-jnp.inf, where=kept) - x.min(initial=jnp.inf, where=kept)
  alike = spread <= ALIKE * jnp.abs(x).max()           # not so where one is NaN: that stays NaN, and stops the run
  apart = jnp.where(kept & ~alike, x - mean, 0.0)
  white = apart / (_deviation(jnp.square(apart).sum(), count, deviation) + eps)
  return jnp.where(kept, white if shift else white + mean, 0.0)


def grouped(rewards_B: jax.Array, group: int, *, deviation: Deviation = 'sample', eps: float = 1e-4) -> jax.Array:
  """Each answer's reward against its group: (r - mean) / (deviation + eps), f32[B]. GRPO (Shao et al. 2024, eq. 4).

  'sample' divides by G - 1, as TRL, Tunix and OpenRLHF do; 'population' by G, which makes advantages of eight answers 7%
  larger; 'none' does not divide by a deviation, which would weigh easy and hard prompts more (Dr. GRPO, Liu et al. 2025).
  A group whose rewards are equal gets 0 exactly. Raises: ValueError if the answers are no whole groups.
  """
  rewards_PG = _by_prompt(rewards_B, group)
  apart_PG = rewards_PG - rewards_PG.mean(1, keepdims=True)
  apart_PG = jnp.where(jnp.ptp(rewards_PG, 1, keepdims=True) == 0, 0.0, apart_PG)
  if deviation != 'none':
    apart_PG = apart_PG / (_deviation(jnp.square(apart_PG).sum(1, keepdims=True), group, deviation) + eps)
  return apart_PG.reshape(-1)


def leave_one_out(rewards_B: jax.Array, group: int) -> jax.Array:
  """Each answer's reward less the mean of the other answers' of its group, f32[B]. RLOO (Ahmadian et al. 2024, eq. 9).

  Computed as G / (G - 1) times the distance from the mean of all; 0 exactly where a group's rewards are equal, or it has only
  one. Raises: ValueError if the answers are no whole groups.
  """
  return grouped(rewards_B, group, deviation='none') * (group / max(group - 1, 1))


def uninformative(rewards_B: jax.Array, group: int) -> jax.Array:
  """Which answers belong to a group whose rewards are all equal, bool[B]: they teach nothing, and DAPO asks others instead.

  Raises: ValueError if the answers are no whole groups.
  """
  rewards_PG = _by_prompt(rewards_B, group)
  return jnp.broadcast_to(jnp.ptp(rewards_PG, 1, keepdims=True) == 0, rewards_PG.shape).reshape(-1)


def kto_reference(mismatched_B: jax.Array) -> jax.Array:
  """KTO's reference point, f32[]: the mean of log p - log p_ref over answers to other prompts, or 0 if that is negative."""
  return jnp.maximum(mismatched_B.astype(jnp.float32).mean(), 0.0)


def _by_prompt(rewards_B, group):
  if len(rewards_B) % group:
    raise ValueError(f'{len(rewards_B)} answers are no whole groups of {group}')
  return rewards_B.astype(jnp.float32).reshape(-1, group)


def _deviation(squares, count, kind: Deviation):
  """The deviation of `count` numbers from the sum of squares of their distances from the mean; 0 for a single one."""
  if kind == 'none':
    return jnp.ones_like(squares)
  return jnp.sqrt(squares / jnp.maximum(count - (kind == 'sample'), 1))
