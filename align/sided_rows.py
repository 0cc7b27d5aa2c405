"""What rows of pairs and of labels have in common: one thing judged a row, in an order of their own for every epoch.

Which sides, `align.pair_tokens` and `align.label_tokens` say; what a reference is, `align.reference`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any, ClassVar

import jax
import numpy as np
from jax.sharding import Mesh

from align.reference import Opened, Sided, lots
from model.errors import DataError
from train.artifact import Store
from train.build import Built
from train.data.pipeline import Batches, Placement
from train.data.shuffle import key, permutation
from train.data.visits import RECORDS, Row
from train.data.vocabulary import AnyVocabulary
from train.run import Run
from train.types import Batch, LossFn, Mean, Params, Setting


class SidedVisits:
  """The endless order of what is judged: row g is a function of the seed and g, each once an epoch."""

  def __init__(self, judged: Opened, length: int, seed: int, noun: str):
    self.judged, self.length, self.seed, self.noun = judged, length, seed, noun
    self.definition: dict[str, Any] = {'length': length, 'seed': seed, f'{noun}s': judged.sha256}
    self._order = lru_cache(maxsize=2)(lambda epoch: permutation(key(seed, f'{noun}s', epoch), len(judged)))

  @property
  def rows(self) -> int:
    return len(self.judged)

  def __getitem__(self, number: int) -> Row:
    """As the split has it; record i32[]: the number, modulo 2^31."""
    return self.judged.row(self._index(number), self.length) | {'record': np.asarray(number % RECORDS, np.int32)}

  def describe(self, number: int) -> str:
    """Where a row comes from, for a person."""
    index = self._index(number)
    return f'{self.noun} {index} of epoch {number // self.rows}: {self.judged.describe(index)}'

  def _index(self, number: int) -> int:
    epoch, visit = divmod(number, self.rows)
    return int(self._order(epoch)[visit])


@dataclass(frozen=True)
class SidedRows(ABC):
  """A `train.types.Feed`, but for how it is opened and what is measured."""

  _: KW_ONLY
  seed: int = 0

  noun: ClassVar[str]

  @property
  @abstractmethod
  def answers(self) -> Sided:
    """What is judged."""

  @property
  def vocabulary(self) -> AnyVocabulary:
    return self.answers.vocabulary

  @property
  def length(self) -> int:
    return self.answers.longest

  @property
  def reads(self) -> int:
    return 2 * self.length

  def holds(self, run: Run, built: Built) -> dict[str, Any]:
    return {}

  def visits(self, store: Store) -> SidedVisits:
    """The order of all there is to learn from. Raises: DataError if it is not as it was made."""
    return SidedVisits(self.answers.open(store, 'train'), self.length, self.seed, self.noun)

  def source(self, store: Store, *, batch: int, mesh: Mesh) -> Batches:
    """Batches on the mesh, of which this process makes the rows that its devices hold."""
    placement = Placement(mesh, batch)
    return Batches(self.visits(store), batch, rows=placement.rows, place=placement)

  def withheld(self, setting: Setting, rows: int) -> list[Row]:
    """So many held-out rows, the first in the order of their own, in lots of a batch. Raises: DataError where there is none."""
    judged = self.answers.open(setting.store, 'heldout')
    if not len(judged):
      raise DataError(f'{self.noun}.none', f'held-out {self.noun}s of {setting.run.name}', 'there is none',
                      'lower heldout_modulo of the corpus')
    visits = SidedVisits(judged, self.length, self.seed, self.noun)
    return list(lots(map(visits.__getitem__, range(min(rows, visits.rows))), setting.run.batch))


class Means:
  """The means of a loss and of each of its metrics over rows, however many lots they come in."""

  def __init__(self, loss_fn: LossFn):
    def means(params: Params, batch: Batch) -> dict[str, Mean]:
      loss = loss_fn(params, {}, batch, jax.random.key(0))
      return {'loss': loss.objective, **loss.metrics}

    self.of = jax.jit(means)

  def __call__(self, params: Params, batches: Iterable[Row]) -> dict[str, float]:
    parts = jax.device_get([self.of(params, batch) for batch in batches])
    return {name: float(sum(part[name].total for part in parts) / max(sum(part[name].weight for part in parts), 1e-20))
            for name in parts[0]}


def heldout(values: dict[str, float]) -> dict[str, float]:
  """The same, named as what is measured on held-out rows."""
  return {f'heldout_{name}': value for name, value in values.items()}
