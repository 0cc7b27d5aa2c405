"""The order in which a run visits its rows: row g, counted through all epochs, is a function of the seed and g alone.

Each part (a source of a mixture, or all the tokens) has epochs of its own: every epoch packs its documents anew and visits the
rows in a new order. How many processes or devices share a batch, and where a run was cut off, make no difference.
"""

from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from model.errors import DataError
from train.artifact import encode
from train.data.mixture import Schedule
from train.data.pack import Packing
from train.data.shuffle import key, permutation
from train.data.token_files import TokenSplit

RECORDS = 1 << 31       # a row's number is kept as i32

Row = dict[str, np.ndarray]


class RowStage(Protocol):
  """A transformation of each row, a function of the row alone. `definition` goes into the pipeline's fingerprint."""

  definition: dict[str, Any]

  def __call__(self, row: Row) -> Row: ...


class Part:
  """The documents of one source, or of all, and how each epoch packs and orders them.

  Raises: DataError if there are none.
  """

  def __init__(self, tokens: TokenSplit, source: str | None, packing: Packing, length: int, seed: int):
    self.tokens, self.source, self.length, self.seed = tokens, source, length, seed
    self.documents = tokens.documents(source)
    self.starts = tokens.offsets[self.documents]
    self.plan = packing.plan(tokens.offsets[self.documents + 1] - self.starts, length, seed)
    if not self.plan.rows:
      raise DataError('mixture.empty-source', self.name, 'it has no training document',
                      'leave it out of the mixture, or look up in the table.json of its corpus what dropped them')
    self._order = lru_cache(maxsize=2)(self._shuffled)

  @property
  def rows(self) -> int:
    """Rows an epoch."""
    return self.plan.rows

  @property
  def name(self) -> str:
    return self.tokens.folder.name if self.source is None else f'{self.tokens.folder.name}/{self.source}'

  def place(self, index: int) -> tuple[int, int]:
    """(epoch, row) of its index-th row."""
    epoch, visit = divmod(index, self.rows)
    return epoch, int(self._order(epoch)[visit])

  def row(self, index: int) -> Row:
    return self.tokens.row(self.plan.spans(*self.place(index)), self.starts, self.length)

  def describe(self, index: int) -> str:
    epoch, row = self.place(index)
    found = [self.tokens.describe(int(self.documents[span.document])) for span in self.plan.spans(epoch, row)]
    return f'row {row} of epoch {epoch} of {self.name}: {", ".join(found)}'

  def _shuffled(self, epoch: int) -> np.ndarray:
    return permutation(key(self.seed, 'rows', epoch), self.rows)


class Visits:
  """Rows by their number, from several parts in turn as the schedule says."""

  def __init__(self, tokens: list[tuple[TokenSplit, str | None]], schedule: Schedule, packing: Packing, length: int,
               seed: int):
    self.schedule, self.length = schedule, length
    self.parts = [Part(split, source, packing, length, key(seed, 'part', index))
                  for index, (split, source) in enumerate(tokens)]
    self.definition: dict[str, Any] = {
      'length': length, 'seed': seed, 'packing': encode(packing), 'quota': schedule.quota.tolist(),
      'sources': [{'tokens': split.sha256, 'source': source} for split, source in tokens]}

  @property
  def rows(self) -> int:
    """Rows after which every part has been read once."""
    return sum(part.rows for part in self.parts)

  def __getitem__(self, number: int) -> Row:
    """tokens, segments i32[length + 1], perhaps mask, as `TokenSplit.row` has them; record i32[]: the number, modulo 2^31."""
    part, index = self.schedule.locate(number)
    return self.parts[part].row(index) | {'record': np.asarray(number % RECORDS, np.int32)}

  def describe(self, number: int) -> str:
    """Where a row comes from, for a person: its epoch and its documents."""
    part, index = self.schedule.locate(number)
    return self.parts[part].describe(index)
