"""The reward model: a language model with a head that gives a whole conversation one number, learnt from pairs.

    loss  =  -log sigmoid(reward of the chosen side - reward of the rejected one - margin)        Bradley and Terry 1952

    replace(parent, name='reward', restore=parent, edits=(Score(),), objective=RewardModel(), ...)

The head is a leaf of the tree beside the model's own, `params['score']`, that an edit puts there: all that reads, shards
or saves a model goes on as before. Only differences of rewards count: a constant added to all of them changes no loss.

Letters: B pairs, P the two sides, R = 2B rows, L positions, D width.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from align import losses
from align.pairwise import agreement, mean, pairs, penalties, rows, weights, with_penalties
from model.decoder import Hidden, Model, box
from model.edit import Edit
from model.errors import ConfigError
from model.sharding import is_box
from model.start import normal
from train.types import Batch, Form, Key, Loss, LossFn, Objective, Params

if TYPE_CHECKING:
  from train.run import Run


@dataclass(frozen=True)
class Score(Edit):
  """Adds the head: a float32 vector without bias, drawn from a normal of deviation 1 / sqrt(D + 1)."""

  def __call__(self, params: Params, key: Key) -> Params:
    """The parameters with `score`; plain or boxed ones. Raises: ConfigError `edit.twice` if they have it already."""
    if 'score' in params:
      raise ConfigError('edit.twice', 'Score', 'the model has a head that scores', 'leave it out of the edits')
    table: Any = params['embedding']['table']
    width = (table.value if is_box(table) else table).shape[1]
    vector_D: Any = normal(key, (width,)) * (width + 1) ** -0.5
    head = box((width,), 'width').replace(value=vector_D) if is_box(table) else vector_D
    return {**params, 'score': {'vector': head}}


def score(params: Params, hidden: Hidden, segments_RL: jax.Array) -> jax.Array:
  """The reward of each row, f32[R], read at its last token that is not padding; 0 for an empty row.

  Raises: ConfigError `reward.no-head` if the model has no such head.
  """
  if 'score' not in params:
    raise ConfigError('reward.no-head', 'objective = RewardModel', 'the model has no head that scores',
                      'add Score() to the edits of the run')
  lengths_R = (segments_RL > 0).sum(1)
  last_RD = jnp.take_along_axis(hidden.x_BLD, jnp.maximum(lengths_R - 1, 0)[:, None, None], 1)[:, 0]
  reward_R = (last_RD.astype(jnp.float32) * params['score']['vector'].astype(jnp.float32)).sum(-1)
  return jnp.where(lengths_R > 0, reward_R, 0.0)


def refuse_score(objective: Objective, run: 'Run') -> None:
  """Raises: ConfigError where a run has a head that its objective does not learn."""
  if any(isinstance(edit, Score) for edit in run.edits):
    raise ConfigError('config.score', f'objective = {type(objective).__name__}, edits = {run.edits}',
                      'only a reward model learns a head that scores', 'leave Score out, or use RewardModel()')


@dataclass(frozen=True)
class RewardModel(Objective):
  """-log p(the chosen side is preferred) after Bradley and Terry 1952, less a pair's margin (Touvron et al. 2023).

  `margin` is what a point of the judge's scale is worth in rewards; 0 ignores the pairs' margins. `centring` weighs a penalty,
  the squared sum of both rewards, that keeps their mean near 0 (Eisenstein et al. 2023 use 0.01).
  """

  form: ClassVar[Form] = 'pairs'

  centring: float = 0.0
  margin: float = 1.0

  def __post_init__(self):
    if self.centring < 0 or self.margin < 0:
      raise ConfigError('config.out-of-range', f'centring = {self.centring}, margin = {self.margin}',
                        'they weigh a penalty and what judges said', 'give 0 or more')

  def check(self, run: 'Run') -> None:
    if not any(isinstance(edit, Score) for edit in run.lineage_of_edits):
      raise ConfigError('config.score', f'objective = RewardModel, edits = {run.lineage_of_edits}',
                        'a reward model scores with a head that only it has', 'put Score() last among the edits')

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      segments_RL = rows(batch['segments'])
      hidden = model.hidden(params, rows(batch['tokens']), segments_RL)
      return self.loss_of(pairs(score(params, hidden, segments_RL)), batch, hidden.aux)

    return loss

  def loss_of(self, rewards_BP: jax.Array, batch: Batch, aux: dict[str, jax.Array]) -> Loss:
    """The loss from rewards and the batch's labels alone, with metrics: accuracy (ties half) and the rewards' gap and mean."""
    weights_B, (chosen_B, rejected_B) = weights(batch), rewards_BP.T
    loss_B = losses.bradley_terry(chosen_B, rejected_B, margin=self.margin * batch['margin'], label=batch['label'])
    objective = mean(loss_B + self.centring * losses.centring(chosen_B, rejected_B), weights_B)
    metrics = {'bradley_terry': mean(loss_B, weights_B), 'accuracy': mean(agreement(rewards_BP), weights_B),
               'reward_gap': mean(chosen_B - rejected_B, weights_B), 'reward': mean(rewards_BP.mean(1), weights_B)}
    return with_penalties(objective, metrics, penalties(aux, weights_B))
