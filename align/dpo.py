"""Preferences learnt without a reward model: DPO and its family, objectives over batches of pairs (`align.pairwise`).

A reference, for those that have one, is the policy before it learnt. Its log-probs are a column of the batch, reference
f32[B, 2] (sums, the chosen side first). Without that column a model with adapters is its own reference, adapters off: so
adapters must have begun on the reference. Its log-probs are not part of what learns, nor under the adapters' dropout.

Letters: B pairs, P the two sides, R = 2B rows, L positions.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from align import losses
from align.pairwise import agreement, mean, pairs, penalties, rows, weights
from align.reward import Score
from model.adapter_tree import adapted, detach
from model.decoder import Model
from model.errors import ConfigError
from train.objectives import shift
from train.types import Batch, Form, Loss, LossFn, Mean, Objective, Params

if TYPE_CHECKING:
  from train.run import Run


class Said(NamedTuple):
  """How likely a model finds the answers of each side."""

  logp_BP: jax.Array                 # f32, nats: sums over the tokens of answers
  tokens_BP: jax.Array               # f32
  aux: dict[str, jax.Array]          # f32[R] each: the router's penalties


def said(model: Model, params: Params, batch: Batch) -> Said:
  """The log-probs of both sides' answers in one forward pass."""
  found = answered(model, params, {name: rows(batch[name]) for name in COLUMNS})
  return Said(pairs(found.logp_R), pairs(found.tokens_R), found.aux)


class Answered(NamedTuple):
  """How likely a model finds the answers of each row."""

  logp_R: jax.Array                  # f32, nats: sums over the tokens of answers
  tokens_R: jax.Array                # f32
  aux: dict[str, jax.Array]          # f32[R] each: the router's penalties


COLUMNS = ('tokens', 'segments', 'mask')


def answered(model: Model, params: Params, batch: Batch) -> Answered:
  """The log-probs of rows' answers, of columns [R, L]; prompts and padding are in no sum."""
  row = shift({name: batch[name] for name in COLUMNS})
  hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
  logp_RL = model.logp(params, hidden.x_BLD, row.targets_BL)
  return Answered(jnp.where(row.weights_BL > 0, logp_RL, 0.0).sum(1), row.weights_BL.sum(1), hidden.aux)


def reference(model: Model, params: Params, batch: Batch) -> jax.Array:
  """The reference's log-probs, f32[B, 2], through which no gradient goes. Raises: ConfigError as `before` does."""
  return before(params, batch.get('reference'), lambda base: said(model, base, batch).logp_BP)


def before(params: Params, column: jax.Array | None, live: Callable[[Params], jax.Array]) -> jax.Array:
  """What a policy said before it learnt: the column, or else what it says without its adapters. No gradient goes there.

  Raises: ConfigError if there is no such column, and the model has no adapters that could be taken off.
  """
  if column is not None:
    return jax.lax.stop_gradient(column)
  if not adapted(params):
    raise ConfigError('dpo.no-reference', 'batches of pairs without a reference', 'the policy is compared with what it was',
                      'use rows of Scored(pairs, by=the parent), or adapters over the parent: edits=(LoRA(),)')
  return jax.lax.stop_gradient(live(detach(params)))


class Compared(NamedTuple):
  """Log-probs of answers, f32[B, 2] each, the chosen side first. Without a reference that is 0."""

  logp_BP: jax.Array
  reference_BP: jax.Array
  tokens_BP: jax.Array

  def per_token(self) -> 'Compared':
    """Means over tokens in place of sums; of an answer without tokens 0."""
    tokens_BP = jnp.maximum(self.tokens_BP, 1.0)
    return Compared(self.logp_BP / tokens_BP, self.reference_BP / tokens_BP, self.tokens_BP)

  def swapped(self) -> 'Compared':
    return Compared(*(each_BP[:, ::-1] for each_BP in self))

  def columns(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """chosen, rejected, and the same of the reference, f32[B] each."""
    return *self.logp_BP.T, *self.reference_BP.T


@dataclass(frozen=True)
class Preference(Objective):
  """An objective over pairs. Where a label is a probability, the loss is what is expected under it."""

  form: ClassVar[Form] = 'pairs'
  referred: ClassVar[bool] = True

  def check(self, run: 'Run') -> None:
    if any(isinstance(edit, Score) for edit in run.edits):
      raise ConfigError('config.score', f'objective = {type(self).__name__}, edits = {run.edits}',
                        'only a reward model learns a head that scores', 'leave Score out, or use RewardModel()')

  @abstractmethod
  def loss(self, sides: Compared) -> jax.Array:
    """The loss of each pair, [B]."""

  @abstractmethod
  def rewards(self, sides: Compared) -> jax.Array:
    """What the loss makes larger for the chosen side than for the rejected one, [B, 2]."""

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      logp_BP, tokens_BP, aux = said(model, params, batch)
      reference_BP = reference(model, params, batch) if self.referred else jnp.zeros_like(logp_BP)
      return self.judged(Compared(logp_BP, reference_BP, tokens_BP), batch['label'], weights(batch), aux)

    return loss

  def judged(self, sides: Compared, label_B: jax.Array, weights_B: jax.Array, aux: dict[str, jax.Array]) -> Loss:
    """The loss of log-probs, with what people look at: agreement (ties half), rewards, how likely each side is."""
    loss_B = label_B * self.loss(sides) + (1.0 - label_B) * self.loss(sides.swapped())
    rewards_BP, (chosen_B, rejected_B, *_) = self.rewards(sides), sides.per_token().columns()
    objective, extra = mean(loss_B, weights_B), penalties(aux, weights_B)
    seen = {'accuracy': agreement(rewards_BP), 'reward_gap': rewards_BP[:, 0] - rewards_BP[:, 1],
            'reward_chosen': rewards_BP[:, 0], 'logp_chosen': chosen_B, 'logp_rejected': rejected_B}
    total = objective.total + sum(penalty.total for penalty in extra.values())
    return Loss(Mean(total, objective.weight), {name: mean(each_B, weights_B) for name, each_B in seen.items()} | extra)


@dataclass(frozen=True)
class DPO(Preference):
  """Direct preference optimisation (Rafailov et al. 2023), conservative with `smoothing` (Mitchell 2023), on sums."""

  beta: float = 0.1
  smoothing: float = 0.0

  def __post_init__(self):
    _positive(beta=self.beta)
    if not 0 <= self.smoothing <= 0.5:
      raise ConfigError('config.out-of-range', f'smoothing = {self.smoothing}', 'it is the share of labels that are wrong',
                        'give 0 to 0.5')

  def loss(self, sides: Compared) -> jax.Array:
    return losses.dpo(*sides.columns(), beta=self.beta, smoothing=self.smoothing)

  def rewards(self, sides: Compared) -> jax.Array:
    return self.beta * (sides.logp_BP - sides.reference_BP)


@dataclass(frozen=True)
class IPO(Preference):
  """Identity preference optimisation (Azar et al. 2023): towards a margin of 1 / (2 beta) a token."""

  beta: float = 0.1

  def __post_init__(self):
    _positive(beta=self.beta)

  def loss(self, sides: Compared) -> jax.Array:
    return losses.ipo(*sides.per_token().columns(), beta=self.beta)

  def rewards(self, sides: Compared) -> jax.Array:
    sides = sides.per_token()
    return self.beta * (sides.logp_BP - sides.reference_BP)


@dataclass(frozen=True)
class Hinge(Preference):
  """Sequence likelihood calibration (Zhao et al. 2023), normalised by the reference (Liu et al. 2023), on sums."""

  beta: float = 0.1

  def __post_init__(self):
    _positive(beta=self.beta)

  def loss(self, sides: Compared) -> jax.Array:
    return losses.hinge(*sides.columns(), beta=self.beta)

  def rewards(self, sides: Compared) -> jax.Array:
    return self.beta * (sides.logp_BP - sides.reference_BP)


@dataclass(frozen=True)
class SimPO(Preference):
  """Simple preference optimisation (Meng et al. 2024): log-probs a token, `gamma` apart, without a reference."""

  beta: float = 2.0
  gamma: float = 1.0

  referred: ClassVar[bool] = False

  def __post_init__(self):
    _positive(beta=self.beta)

  def loss(self, sides: Compared) -> jax.Array:
    chosen_B, rejected_B, *_ = sides.per_token().columns()
    return losses.simpo(chosen_B, rejected_B, beta=self.beta, gamma=self.gamma)

  def rewards(self, sides: Compared) -> jax.Array:
    return self.beta * sides.per_token().logp_BP


@dataclass(frozen=True)
class ORPO(Preference):
  """Odds ratio preference optimisation (Hong et al. 2024): the chosen answer's nll a token, plus `weight` times the odds."""

  weight: float = 0.1

  referred: ClassVar[bool] = False

  def __post_init__(self):
    _positive(weight=self.weight)

  def loss(self, sides: Compared) -> jax.Array:
    chosen_B, rejected_B, *_ = sides.per_token().columns()
    return -chosen_B + self.weight * losses.orpo_odds(chosen_B, rejected_B)

  def rewards(self, sides: Compared) -> jax.Array:
    return losses.log_odds(sides.per_token().logp_BP)


def _positive(**fields: float) -> None:
  for name, value in fields.items():
    if not value > 0:
      raise ConfigError('config.out-of-range', f'{name} = {value}', 'it weighs what is learnt', 'give more than 0')
