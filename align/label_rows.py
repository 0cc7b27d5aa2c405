"""What a KTO run reads: labels, one a row, and with each batch KTO's reference point (`align.kto`).

    labels = LabelTokens(...)
    LabelRows(ScoredLabels(name='reference', labels=labels, by=parent))      the parent is the reference
    LabelRows(labels)                                                        for adapters, which are their own

The point is a mean over the whole batch under the parameters that are about to learn from it, and so no loss may take it:
the source, `WithReferencePoint`, does, and writes it into a column.

Letters: B labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from align.advantages import kto_reference
from align.batch_means import Means, heldout
from align.kto import ANOTHERS, side_logps
from align.label_tokens import LabelTokens
from align.pairwise import mean, weights
from align.reference import Reference, check_reference
from align.sided_rows import SidedRows
from model.decoder import Model
from model.errors import ConfigError
from model.sharding import batch_sharding
from train.data.visits import Row
from train.edits import join
from train.run import Run
from train.types import Batch, Evaluator, Form, Frozen, Mean, Params, Position, Setting, Source, State


@dataclass(frozen=True, kw_only=True)
class ScoredLabels(Reference):
  """Labels with a reference's log-probs of each answer and of the other label's answer beside it."""

  labels: LabelTokens

  @property
  def answers(self) -> LabelTokens:
    return self.labels


@dataclass(frozen=True)
class LabelRows(SidedRows):
  """Labels, one a row of two sides of `length` tokens: its own answer, and the answer to another prompt."""

  labels: LabelTokens | ScoredLabels

  form: ClassVar[Form] = 'labels'
  noun: ClassVar = 'label'

  @property
  def answers(self) -> LabelTokens | ScoredLabels:
    return self.labels

  def check(self, run: Run) -> None:
    """Raises: ConfigError for a batch of one, or if the reference is missing or another than the parent."""
    if run.batch < 2:
      raise ConfigError('kto.batch', f'batch = {run.batch}', 'the point that answers are measured from is a mean over a batch',
                        'use a batch of 2 or more, the more the better')
    check_reference(run, self.labels)

  def open(self, setting: Setting) -> 'WithReferencePoint':
    batches = self.source(setting.store, batch=setting.run.batch, mesh=setting.built.mesh)
    return WithReferencePoint(batches, setting.built.model, setting.frozen, setting.built.mesh)

  def evaluator(self, setting: Setting, rows: int) -> Evaluator:
    """The means of the run's loss and metrics over held-out labels, with the reference point of all of them."""
    batches, means = self.withheld(setting, rows), Means(setting.run.objective(setting.built.model))
    point = HeldoutReferencePoint(setting.built.model)
    return lambda params: heldout(means(params, point(params, batches)))


class HeldoutReferencePoint:
  """KTO's reference point over several batches, written into a column `kl` of each."""

  def __init__(self, model: Model):
    self.of = jax.jit(lambda params, lot: mean(side_logps(model, params, lot, ANOTHERS).gain_B, weights(lot)))

  def __call__(self, params: Params, batches: list[Row]) -> Iterator[Row]:
    parts: list[Mean] = jax.device_get([self.of(params, lot) for lot in batches])
    kl = max(sum(float(part.total) for part in parts) / sum(float(part.weight) for part in parts), 0.0)
    return (lot | {'kl': np.full(len(lot['label']), kl, np.float32)} for lot in batches)


class WithReferencePoint:
  """A `train.types.Source`: batches with a column `kl` f32[B], the same in all rows, under the parameters of the state given.

  The adapters' dropout is off here.
  """

  def __init__(self, source: Source, model: Model, frozen: Frozen, mesh: Mesh):
    def point(params: Params, frozen: Frozen, batch: Batch) -> jax.Array:
      gain_B = side_logps(model, join(params, frozen), batch, ANOTHERS).gain_B
      return jnp.broadcast_to(kto_reference(gain_B), gain_B.shape)

    self.source, self.frozen = source, frozen
    self.point = jax.jit(point, out_shardings=batch_sharding(mesh))

  def __call__(self, state: State) -> Batch:
    """The next batch, with the point."""
    batch = self.source(state)
    return batch | {'kl': self.point(state.params, self.frozen, batch)}

  def save(self) -> Position:
    return self.source.save()

  def load(self, position: Position) -> None:
    self.source.load(position)

  def describe(self, record: int) -> str:
    return self.source.describe(record)

  def close(self) -> None:
    self.source.close()
