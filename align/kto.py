"""KTO: a policy learns from answers that were each found good or bad, without pairs (Ethayarajh et al. 2024).

    gain       =  log p(y | x) - log p_ref(y | x), nats
    good y     :  loss = desirable * (1 - sigmoid(beta * (gain - kl)))
    bad y      :  loss = undesirable * (1 - sigmoid(beta * (kl - gain)))

`kl` is the reference point: the mean gain of answers to other prompts, 0 or more. Those answers are the second side of each
row. It is a mean over the batch under the policy of this very step, which a loss must not take, so the source takes it and
writes it into a column (`align.label_rows`).

A batch of labels holds tokens i32[B, 2, L], segments i32[B, 2, L], mask f32[B, 2, L] (the own answer first, then another's),
label f32[B] (1 is good), kl f32[B] (the same in all rows) and, without adapters, reference f32[B, 2].

Letters: B labels, L positions.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from align import losses
from align.answer_logps import COLUMNS, answer_logps, under_reference
from align.pairwise import mean, weights, with_penalties
from align.reward import refuse_score
from model.decoder import Model
from model.errors import ConfigError
from train.types import Batch, Form, Loss, LossFn, Objective, Params

if TYPE_CHECKING:
  from train.run import Run

OWN, ANOTHERS = 0, 1       # the sides of a row


class SideLogps(NamedTuple):
  """Log-probs of the answers of one side, f32[B] each, nats."""

  logp_B: jax.Array                  # under the policy
  reference_B: jax.Array             # under its reference
  aux: dict[str, jax.Array]          # the router's penalties

  @property
  def gain_B(self) -> jax.Array:
    """log p - log p_ref, nats."""
    return self.logp_B - self.reference_B


def side_logps(model: Model, params: Params, batch: Batch, side: int) -> SideLogps:
  """The log-probs of a side's answers under the policy and its reference. Raises: ConfigError without a reference."""
  rows = {name: batch[name][:, side] for name in COLUMNS}
  found = answer_logps(model, params, rows)
  column = batch['reference'][:, side] if 'reference' in batch else None
  reference_B = under_reference(params, column, lambda base: answer_logps(model, base, rows).logp_R)
  return SideLogps(found.logp_R, reference_B, found.aux)


@dataclass(frozen=True)
class KTO(Objective):
  """Kahneman-Tversky optimisation; `desirable` and `undesirable` weigh good and bad answers.

  For data of g good and b bad answers the paper wants desirable * g to be between 1 and 4/3 of undesirable * b.
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
    refuse_score(self, run)

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      return self.loss_of(side_logps(model, params, batch, OWN), batch['label'], batch['kl'], weights(batch))

    return loss

  def loss_of(self, own: SideLogps, label_B: jax.Array, kl_B: jax.Array, weights_B: jax.Array) -> Loss:
    """The loss from log-probs alone, with metrics: how often gain - kl has the sign of the label (ties half), and rewards."""
    loss_B = losses.kto(own.logp_B, own.reference_B, label_B > 0.5, kl_B, beta=self.beta, desirable=self.desirable,
                        undesirable=self.undesirable)
    right_B = 0.5 * (1.0 + jnp.sign((2.0 * label_B - 1.0) * (own.gain_B - kl_B)))
    metrics = {'accuracy': mean(right_B, weights_B), 'kl': mean(kl_B, weights_B),
               'reward_good': mean(self.beta * own.gain_B, weights_B * label_B),
               'reward_bad': mean(self.beta * own.gain_B, weights_B * (1.0 - label_B))}
    extra = {name: mean(each_B, weights_B) for name, each_B in own.aux.items()}
    return with_penalties(mean(loss_B, weights_B), metrics, extra)
