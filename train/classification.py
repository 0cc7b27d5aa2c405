"""Classification of texts or words: the objective for a model with a classifier head, and its predictions.

    Run(restore=parent, edits=(Classifier(8, 'mean'),), rows=ClassRows(...), objective=Classification(), ...)

Letters: B rows, L positions, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from model.classifier import Classifier, class_logits
from model.decoder import Model
from model.errors import ConfigError
from train.types import Batch, Form, Loss, LossFn, Mean, Objective, Params

if TYPE_CHECKING:
  from train.run import Parent


class Said(NamedTuple):
  """What a model predicts at each position."""

  nll_BL: jax.Array                # nats of the true class
  class_BL: jax.Array              # i32: the likeliest class


def said(model: Model) -> Callable[[Params, Batch], Said]:
  """A jitted function of (params, batch)."""

  @jax.jit
  def say(params: Params, batch: Batch) -> Said:
    logp_BLC, _ = _logp(model, params, batch)
    return Said(-_of(logp_BLC, batch['targets']), logp_BLC.argmax(-1).astype(jnp.int32))

  return say


def _logp(model: Model, params: Params, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
  hidden = model.hidden(params, batch['tokens'], batch['segments'])
  return jax.nn.log_softmax(class_logits(params, hidden, batch['segments'])), hidden.aux


def _of(logp_BLC: jax.Array, targets_BL: jax.Array) -> jax.Array:
  return jnp.take_along_axis(logp_BLC, targets_BL[..., None], -1)[..., 0]


def classifier_of(run: 'Parent') -> Classifier:
  """The head that a run's model has. Raises: ConfigError if it has none."""
  for edit in run.lineage_of_edits:
    if isinstance(edit, Classifier):
      return edit
  raise ConfigError('config.classifier', f'edits of {run.name} = {run.lineage_of_edits}',
                    'classes are told apart by a head that only such a model has', 'put Classifier() last among the edits')


@dataclass(frozen=True)
class Classification(Objective):
  """Cross-entropy of the classes of judged positions, of which `smoothing` is spread over all classes (Szegedy et al. 2016).

  The batch holds tokens, segments and targets i32[B, L], and mask f32[B, L], 1 where a position is judged.
  """

  form: ClassVar[Form] = 'classes'

  smoothing: float = 0.0

  def __post_init__(self):
    if not 0 <= self.smoothing < 1:
      raise ConfigError('config.out-of-range', f'smoothing = {self.smoothing}', 'it is a share', 'use 0 or more, below 1')

  def check(self, run) -> None:
    classifier_of(run)

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      logp_BLC, aux = _logp(model, params, batch)
      return self.judged(logp_BLC, batch['targets'], batch['mask'].astype(jnp.float32), aux)

    return loss

  def judged(self, logp_BLC: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array, aux: dict[str, jax.Array]) -> Loss:
    """The loss from log-probs; the router's penalties of a row are weighed by its judged positions."""
    nll_BL, judged_B = -_of(logp_BLC, targets_BL), weights_BL.sum(-1)
    spread_BL = (1 - self.smoothing) * nll_BL - self.smoothing * logp_BLC.mean(-1)
    count = judged_B.sum()
    penalties = {name: Mean((penalty_B * judged_B).sum(), count) for name, penalty_B in aux.items()}
    total = (spread_BL * weights_BL).sum() + sum(penalty.total for penalty in penalties.values())
    right_BL = logp_BLC.argmax(-1) == targets_BL
    metrics = {'nll': Mean((nll_BL * weights_BL).sum(), count), 'accuracy': Mean((right_BL * weights_BL).sum(), count)}
    return Loss(Mean(total, count), metrics | penalties)
