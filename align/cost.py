"""The cost model: a language model that gives a conversation one number, above 0 where it does harm (Dai et al. 2023).

    loss  =  -log sigmoid(cost of the more harmful side - cost of the other) - sum over sides of log sigmoid(s * cost)

with s = 1 for a side that is harmful and -1 for a safe one. A reward model's numbers mean something as differences alone, but a
limit needs a zero: the second term puts it where a conversation is as likely to do harm as not.

    harm = Run(name='harm', restore=chat, rows=PairRows(SafetyPairs(...)), edits=(Score(),), objective=CostModel(), ...)
    Limit('harm', Modelled(OwnZero(name='harm-zero', run=harm)), most=0.0)

Letters: B pairs, P the two sides.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid

from align import losses
from align.modelled import SCALE, Scale
from align.pairwise import agreement, mean, penalties, weights, with_penalties
from align.reward import RewardModel
from model.errors import ConfigError, demand
from train.artifact import Store, write_json
from train.types import Batch, Loss


def sign(costs_BP: jax.Array, safe_BP: jax.Array) -> jax.Array:
  """-log p(safe or harmful, as each side was found), nats, summed over both, f32[B]. Dai et al. 2023, eq. 6, last terms."""
  return -(safe_BP * log_sigmoid(-costs_BP) + (1.0 - safe_BP) * log_sigmoid(costs_BP)).sum(1)


@dataclass(frozen=True)
class CostModel(RewardModel):
  """The cost model's loss (Dai et al. 2023, eq. 6); the rejected side of a pair is the more harmful one.

  `signs` weighs its second term. A batch of pairs has a column safe f32[B, 2] besides: 1 for a safe side.
  """

  signs: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    demand(self.centring == 0, 'CostModel.centring', self.centring, 'the signs say where the zero is', 'leave it out')
    demand(self.signs > 0, 'CostModel.signs', self.signs, 'without signs the zero means nothing', 'use more than 0')

  def loss_of(self, costs_BP: jax.Array, batch: Batch, aux: dict[str, jax.Array]) -> Loss:
    """The loss from costs and the batch's labels alone, with metrics: accuracy of their order and of their sign, ties half."""
    weights_B, safe_BP = weights(batch), batch['safe']
    order_B = losses.bradley_terry(costs_BP[:, 1], costs_BP[:, 0], margin=self.margin * batch['margin'], label=batch['label'])
    sign_B = sign(costs_BP, safe_BP)
    right_BP = 0.5 * (1.0 + jnp.sign(costs_BP * (1.0 - 2.0 * safe_BP)))
    metrics = {'bradley_terry': mean(order_B, weights_B), 'signs': mean(sign_B, weights_B),
               'accuracy': mean(agreement(-costs_BP), weights_B), 'sign_accuracy': mean(right_BP.mean(1), weights_B)}
    return with_penalties(mean(order_B + self.signs * sign_B, weights_B), metrics, penalties(aux, weights_B))


@dataclass(frozen=True, kw_only=True)
class OwnZero(Scale):
  """The scale of a cost model: mean 0 and deviation 1, so that its numbers and their zero stay as they are."""

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.run.objective, CostModel):
      raise ConfigError('config.cost', f'run = {self.run.name}', f'its objective is {type(self.run.objective).__name__}, whose '
                        'zero means nothing', 'give a run that learnt as a CostModel')

  def make(self, folder: Path, store: Store) -> None:
    """Writes that scale; nothing is measured."""
    write_json(folder / SCALE, {'mean': 0.0, 'deviation': 1.0, 'sides': 0})
