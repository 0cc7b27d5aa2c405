"""The cost model: a language model that gives one number for a conversation, above 0 where it does harm (Dai et al. 2023).

    harm = Run(name='harm', restore=chat, rows=PairRows(SafetyPairs(...)), edits=(Score(),), objective=CostModel(), ...)
    Limit('harm', Modelled(OwnZero(name='harm-zero', run=harm)), most=0.0)

A reward model's numbers are differences; a limit needs a zero. Here each side is also judged by itself, so the zero is where
it is as likely to do harm as not.

Letters: B pairs, P the two sides.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
from jax.nn import log_sigmoid

from align import losses
from align.modelled import SCALE, Scale
from align.pairwise import agreement, mean, pairs, penalties, rows, weights
from align.reward import RewardModel, score
from model.decoder import Model
from model.errors import ConfigError, demand
from train.artifact import Store, write_json
from train.types import Batch, Loss, LossFn, Mean


def sign(costs_BP: jax.Array, safe_BP: jax.Array) -> jax.Array:
  """-log p(each side is what it was found to be), nats, the sum of both sides, [B]: Dai et al. 2023, eq. 6, its last terms."""
  return -(safe_BP * log_sigmoid(-costs_BP) + (1.0 - safe_BP) * log_sigmoid(costs_BP)).sum(1)


@dataclass(frozen=True)
class CostModel(RewardModel):
  """-log p(the rejected side is the more harmful) - log p(each side is safe or not), after Dai et al. 2023, eq. 6.

  `signs` weighs the second part; a batch of pairs has a column safe f32[B, 2] besides.
  """

  signs: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    demand(self.centring == 0, 'CostModel.centring', self.centring, 'the signs say where the zero is', 'leave it out')
    demand(self.signs > 0, 'CostModel.signs', self.signs, 'without signs the zero means nothing', 'use more than 0')

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      segments_RL = rows(batch['segments'])
      hidden = model.hidden(params, rows(batch['tokens']), segments_RL)
      return self.priced(pairs(score(params, hidden, segments_RL)), batch, hidden.aux)

    return loss

  def priced(self, costs_BP: jax.Array, batch: Batch, aux: dict[str, jax.Array]) -> Loss:
    """The loss of costs, how often they agree with the judges in their order, and how often in their sign, ties half."""
    weights_B, safe_BP = weights(batch), batch['safe']
    order_B = losses.bradley_terry(costs_BP[:, 1], costs_BP[:, 0], margin=self.margin * batch['margin'], label=batch['label'])
    sign_B = sign(costs_BP, safe_BP)
    objective, extra = mean(order_B + self.signs * sign_B, weights_B), penalties(aux, weights_B)
    right_BP = 0.5 * (1.0 + jax.numpy.sign(costs_BP * (1.0 - 2.0 * safe_BP)))
    metrics = {'bradley_terry': mean(order_B, weights_B), 'signs': mean(sign_B, weights_B),
               'accuracy': mean(agreement(-costs_BP), weights_B), 'sign_accuracy': mean(right_BP.mean(1), weights_B)}
    total = objective.total + sum(penalty.total for penalty in extra.values())
    return Loss(Mean(total, objective.weight), metrics | extra)


@dataclass(frozen=True, kw_only=True)
class OwnZero(Scale):
  """The scale of a cost model: what it gives is taken as it is."""

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.run.objective, CostModel):
      raise ConfigError('config.cost', f'run = {self.run.name}', f'its objective is {type(self.run.objective).__name__}, whose '
                        'zero means nothing', 'give a run that learnt as a CostModel')

  def make(self, folder: Path, store: Store) -> None:
    """Writes down that there is nothing to measure."""
    write_json(folder / SCALE, {'mean': 0.0, 'deviation': 1.0, 'sides': 0})
