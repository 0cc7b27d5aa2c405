"""What `align.pair_rows` and `align.label_rows` have in common: feeds whose rows have two sides, shuffled anew every epoch."""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from jax.sharding import Mesh

from align.batch_means import in_batches
from align.reference import Opened, Sided
from model.errors import DataError
from train.artifact import Store
from train.build import Built
from train.data.pipeline import Batches, Placement
from train.data.shuffle import key, permutation
from train.data.visits import RECORDS, Row
from train.data.vocabulary import AnyVocabulary
from train.run import Run
from train.types import Setting


class SidedVisits:
  """The endless order of rows: row g depends on the seed and g alone, and each comes once an epoch."""

  def __init__(self, judged: Opened, length: int, seed: int, noun: str):
    self.judged, self.length, self.seed, self.noun = judged, length, seed, noun
    self.definition: dict[str, Any] = {'length': length, 'seed': seed, f'{noun}s': judged.sha256}
    self._order = lru_cache(maxsize=2)(lambda epoch: permutation(key(seed, f'{noun}s', epoch), len(judged)))

  @property
  def rows(self) -> int:
    return len(self.judged)

  def __getitem__(self, number: int) -> Row:
    """The split's own columns and record i32[]: the number, modulo 2^31."""
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
  """A `train.types.Feed`, all but `check`, `open` and `evaluator`."""

  _: KW_ONLY
  seed: int = 0

  noun: ClassVar[str]

  @property
  @abstractmethod
  def answers(self) -> Sided:
    """The answers that rows are made of."""

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
    """The training rows in their order. Raises: DataError if their files are not as they were made."""
    return SidedVisits(self.answers.open(store, 'train'), self.length, self.seed, self.noun)

  def source(self, store: Store, *, batch: int, mesh: Mesh) -> Batches:
    """Batches laid on the mesh; this process makes the rows that its devices hold."""
    placement = Placement(mesh, batch)
    return Batches(self.visits(store), batch, rows=placement.rows, place=placement)

  def withheld(self, setting: Setting, rows: int) -> list[Row]:
    """The first `rows` held-out rows of their order, in batches. Raises: DataError where there is none."""
    judged = self.answers.open(setting.store, 'heldout')
    if not len(judged):
      raise DataError(f'{self.noun}.none', f'held-out {self.noun}s of {setting.run.name}', 'there is none',
                      'lower heldout_modulo of the corpus')
    visits = SidedVisits(judged, self.length, self.seed, self.noun)
    return list(in_batches(map(visits.__getitem__, range(min(rows, visits.rows))), setting.run.batch))
