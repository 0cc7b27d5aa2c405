"""KTO: preferences from labels alone, answers of which each was found good or bad (Ethayarajh et al. 2024).

An answer is judged by how much likelier it became since the reference, above or below a point `kl`: how much likelier
answers became in general, estimated on answers to other prompts, the second side of each row. That is a mean over the batch
under the policy of this very step, which a loss must not take, so the source takes it (`align.label_rows`): a column.

A batch of labels holds tokens i32[B, 2, L], segments i32[B, 2, L], mask f32[B, 2, L] (the own answer first, then another's),
label f32[B] (1 is good), kl f32[B] (the same in all rows) and, but for adapters, reference f32[B, 2].

Letters: B labels, L positions.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from align import losses
from align.dpo import COLUMNS, answered, before
from align.pairwise import mean, weights
from align.reward import Score
from model.decoder import Model
from model.errors import ConfigError
from train.types import Batch, Form, Loss, LossFn, Mean, Objective, Params

if TYPE_CHECKING:
  from train.run import Run

OWN, ANOTHERS = 0, 1       # the sides of a row


class Ratio(NamedTuple):
  """How likely the answers of one side are, f32[B] each."""

  logp_B: jax.Array
  reference_B: jax.Array
  aux: dict[str, jax.Array]          # the router's penalties

  @property
  def gain_B(self) -> jax.Array:
    """By how much likelier than under the reference, nats."""
    return self.logp_B - self.reference_B


def ratio(model: Model, params: Params, batch: Batch, side: int) -> Ratio:
  """The log-probs of a side's answers under the policy and its reference. Raises: ConfigError without a reference."""
  rows = {name: batch[name][:, side] for name in COLUMNS}
  found = answered(model, params, rows)
  column = batch['reference'][:, side] if 'reference' in batch else None
  return Ratio(found.logp_R, before(params, column, lambda base: answered(model, base, rows).logp_R), found.aux)


@dataclass(frozen=True)
class KTO(Objective):
  """What good answers fall short of, and bad ones exceed; `desirable` and `undesirable` weigh the two.

  The paper has the weights times the numbers of their labels in a ratio of 1 to 4/3, so that they even out sets in which
  one kind is rare.
  """

  form: ClassVar[Form] = 'labels'

  beta: float = 0.1
  desirable: float = 1.0
  undesirable: float = 1.0

  def __post_init__(self):
    for name in ('beta', 'desirable', 'undesirable'):
      if not getattr(self, name) > 0:
        raise ConfigError('config.out-of-range', f'{name} = {getattr(self, name)}', 'it weighs what is learnt',
                          'give more than 0')

  def check(self, run: 'Run') -> None:
    if any(isinstance(edit, Score) for edit in run.edits):
      raise ConfigError('config.score', f'objective = KTO, edits = {run.edits}',
                        'only a reward model learns a head that scores', 'leave Score out, or use RewardModel()')

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      return self.judged(ratio(model, params, batch, OWN), batch['label'], batch['kl'], weights(batch))

    return loss

  def judged(self, own: Ratio, label_B: jax.Array, kl_B: jax.Array, weights_B: jax.Array) -> Loss:
    """The loss of log-probs, with what people look at: on which side of the point each answer is (ties half), and rewards."""
    loss_B = losses.kto(own.logp_B, own.reference_B, label_B > 0.5, kl_B, beta=self.beta, desirable=self.desirable,
                        undesirable=self.undesirable)
    objective, extra = mean(loss_B, weights_B), {name: mean(each_B, weights_B) for name, each_B in own.aux.items()}
    right_B = 0.5 * (1.0 + jnp.sign((2.0 * label_B - 1.0) * (own.gain_B - kl_B)))
    seen = {'accuracy': mean(right_B, weights_B), 'kl': mean(kl_B, weights_B),
            'reward_good': mean(self.beta * own.gain_B, weights_B * label_B),
            'reward_bad': mean(self.beta * own.gain_B, weights_B * (1.0 - label_B))}
    total = objective.total + sum(penalty.total for penalty in extra.values())
    return Loss(Mean(total, objective.weight), seen | extra)
