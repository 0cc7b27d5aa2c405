"""From judged answers to the columns of batches: credit, old log-probs, and the metrics of an iteration.

Letters: B answers (those to one question follow one another), T positions of rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from align import advantages
from align.constraint import combined
from align.credit import Judged
from align.rewards import Answer
from align.rollout import Rollouts
from align.sampler import Columns, along
from train.objectives import SEEN


class Lot(NamedTuple):
  """Answers as they were sampled and judged."""

  answers: list[Answer]
  logps: list[np.ndarray]                  # f32 each: of their ids, as they were drawn
  rewards: dict[str, np.ndarray]           # f32[B] by part, not weighed, and by cost
  total_B: np.ndarray                      # the weighted sum of the parts

  def of(self, rows: Sequence[int]) -> 'Lot':
    """Some of them."""
    return Lot([self.answers[row] for row in rows], [self.logps[row] for row in rows],
               {name: values[list(rows)] for name, values in self.rewards.items()}, self.total_B[list(rows)])

  @property
  def cut_B(self) -> np.ndarray:
    """Which the limit ended, bool[B]."""
    return np.array([answer.reason == 'length' for answer in self.answers])


def joined(lots: Sequence[Lot]) -> Lot:
  """One lot after another."""
  return Lot([answer for lot in lots for answer in lot.answers], [logp for lot in lots for logp in lot.logps],
             {name: np.concatenate([lot.rewards[name] for lot in lots]) for name in lots[0].rewards},
             np.concatenate([lot.total_B for lot in lots]))


class Scored(NamedTuple):
  """A lot as rows, with what models say of each token, f32[B, T] at the tokens' places."""

  columns: Columns                         # tokens, segments, mask
  logp_BT: np.ndarray                      # log-probs under the policy that is to learn
  values: dict[str, np.ndarray]            # by critic: what it says before each token
  ref_BT: np.ndarray | None                # log-probs under the reference

  @property
  def kl_BT(self) -> np.ndarray:
    """The estimator k1 of sampled tokens, log p - log p_ref; 0 without a reference."""
    if self.ref_BT is None:
      return np.zeros_like(self.logp_BT)
    return (self.logp_BT - self.ref_BT) * self.columns['mask']


def rows_of(rollouts: Rollouts, lot: Lot, scored: Scored, beta: float, multipliers: Sequence[float]) -> Columns:
  """All columns of the rows: tokens, segments, mask, and metrics `seen/name` f32[B].

  For a policy's objective also advantage, logp and correction; with critics values/name and returns/name; with a reference ref.
  """
  cut_B = lot.cut_B
  rewards_B, mask_BT = rollouts.truncated(lot.total_B, scored.columns['mask'], cut_B)

  def credited(worth_B: np.ndarray, of: str, price: float) -> Columns:
    found = rollouts.credit(Judged(worth_B, mask_BT, price * scored.kl_BT, scored.values.get(of), rollouts.group))
    return {name: np.asarray(column) for name, column in found.items()}

  main = credited(rewards_B, 'reward', beta)
  columns = scored.columns | {'mask': mask_BT}
  if rollouts.form == 'text':
    return columns | main | _seen(rollouts, lot, scored, rewards_B, cut_B, beta, multipliers)
  costs = [credited(lot.rewards[limit.name], limit.name, 0.0) for limit in rollouts.limits]
  columns |= {'advantage': combined(main['advantage'], [cost['advantage'] for cost in costs], multipliers),
              'logp': scored.logp_BT, 'correction': correction(scored.logp_BT, _sampled(lot, scored), rollouts.importance)}
  for of, found in zip(rollouts.critics, (main, *costs)):
    columns |= {f'values/{of}': scored.values[of], f'returns/{of}': found['returns']}
  if scored.ref_BT is not None:
    columns['ref'] = scored.ref_BT
  return columns | _seen(rollouts, lot, scored, rewards_B, cut_B, beta, multipliers) | _explained(rollouts, columns)


def correction(logp_BT: np.ndarray, sampled_BT: np.ndarray, most: float) -> np.ndarray:
  """min(p / q, most), f32[B, T]: the weight of a token that was sampled with q and is learnt with p (Yao et al. 2025)."""
  return np.minimum(np.exp(np.clip(logp_BT - sampled_BT, -20, 20)), np.float32(most))


def _sampled(lot: Lot, scored: Scored) -> np.ndarray:
  return along(lot.logps, lot.answers, scored.logp_BT.shape[1])


def _seen(rollouts: Rollouts, lot: Lot, scored: Scored, rewards_B: np.ndarray, cut_B: np.ndarray, beta: float,
          multipliers: Sequence[float]) -> Columns:
  """Metrics of an iteration, one number for each row."""
  ones_B = np.ones(len(rewards_B), np.float32)
  parts = {f'reward/{part.name}': lot.rewards[part.name] for part in rollouts.rewards} if len(rollouts.rewards) > 1 else {}
  limits = {f'{what}/{limit.name}': value for limit, m in zip(rollouts.limits, multipliers)
            for what, value in (('cost', lot.rewards[limit.name]), ('multiplier', m * ones_B))}
  found = {'reward': rewards_B, 'answer_tokens': scored.columns['mask'].sum(1), 'truncated': cut_B} | parts | limits
  if rollouts.group > 1:
    found['alike'] = np.asarray(advantages.uninformative(jnp.asarray(rewards_B), rollouts.group))
  if rollouts.by is None:
    found['sampler_gap'] = np.abs(scored.logp_BT - _sampled(lot, scored)).max(1)
  if scored.ref_BT is not None:
    found |= {'kl': scored.kl_BT.sum(1), 'kl_price': beta * ones_B}
  return {SEEN + name: np.asarray(value, np.float32) for name, value in found.items()}


def _explained(rollouts: Rollouts, columns: Columns) -> Columns:
  """The explained variance of each critic, over all tokens: 1 is perfect, below 0 is worse than a constant."""
  kept_BT, ones_B = columns['mask'] > 0, np.ones(len(columns['mask']), np.float32)

  def share(of: str) -> float:
    returns = columns[f'returns/{of}'][kept_BT]
    left = returns - columns[f'values/{of}'][kept_BT]
    return float(1 - left.var() / returns.var()) if returns.size and returns.var() > 0 else 0.0

  return {f'{SEEN}explained/{of}': share(of) * ones_B for of in rollouts.critics}
