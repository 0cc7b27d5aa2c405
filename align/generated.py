"""Training data that models write: every answer is kept in a journal, and a corpus reads those that came out right.

    Corpus(name='revised', sources=(FromGenerated(revisions),), stages=())

`Revisions`, `AiPreferences` and `Ranked` are such. The folder has `records`, a line for each question with all that was said
and its `outcome`; `lines`, which a corpus reads, of the records whose outcome is `kept`, in their order; and `table.json`,
which counts the outcomes. What was said is dear: a try that was cut off goes on where it stood (`align.journal`).
"""

import glob
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import ClassVar

import rich

from align import journal
from align.journal import Record
from align.questions import Asking
from model.errors import ConfigError, DataError
from train.artifact import Artifact, Store, how, write_json
from train.data.corpus import TABLE
from train.data.readers import Lines, Reader, Written
from train.data.shuffle import key


@dataclass(frozen=True, kw_only=True)
class Generated(Artifact):
  """Data made of the first `count` training questions."""

  questions: Asking
  count: int = 1000
  seed: int = 0
  lot: int = how(64)                   # questions between two saves

  records: ClassVar[str]
  lines: ClassVar[str]
  kept: ClassVar[str]                  # the outcome of what is learnt from
  reader: ClassVar[type[Lines]]      # of the lines
  refusal: ClassVar[tuple[str, str]]   # where nothing came out right: an error's name, and what to do

  def __post_init__(self):
    if min(self.count, self.lot) < 1:
      raise ConfigError('config.out-of-range', f'count = {self.count}, lot = {self.lot}', 'they count questions',
                        'use 1 or more')

  @abstractmethod
  def asking(self, store: Store) -> Callable[[range], list[Record]]:
    """A function from numbers of questions to their records."""

  @abstractmethod
  def line(self, record: Record) -> Record:
    """The line that a corpus reads of a record that is kept."""

  def counted(self, records: Sequence[Record]) -> dict[str, dict]:
    """What `table.json` says: how many questions had which outcome."""
    return {'outcomes': {'questions': len(records), **dict(sorted(Counter(each['outcome'] for each in records).items()))}}

  def make(self, folder: Path, store: Store) -> None:
    """Asks all questions and writes the files. Raises: DataError if nothing came out right."""
    journal.write(folder / self.records, self.count, self.lot, self.asking(store))
    records = list(journal.read(folder / self.records))
    table = self.counted(records)
    write_json(folder / TABLE, table)
    rich.print(f'{type(self).__name__} {self.name}', *(f'  {what}: {number:,}' for what, number in table['outcomes'].items()),
               sep='\n')
    if not (kept := [record for record in records if record['outcome'] == self.kept]):
      error, fix = self.refusal
      raise DataError(error, f'{type(self).__name__} {self.name}', f'of {self.count:,} questions: {table["outcomes"]}', fix)
    journal.dump(folder / self.lines, map(self.line, kept))

  def remains(self, folder: Path) -> str:
    """How far a try that was cut off came, for people."""
    return f'after {journal.whole_lines(folder / f"{self.records}.part")} of {self.count} questions'


def seeds(seed: int, what: str, which: int, numbers: Sequence[int]) -> list[int]:
  """A seed for each number, 32 bits."""
  return [key(seed, what, which, number) >> 32 for number in numbers]


@dataclass(frozen=True)
class FromGenerated(Written):
  """The kept lines of generated data as the documents of a corpus."""

  generated: Generated
  _: KW_ONLY
  source: str = 'generated'

  def reader(self, store: Store) -> Reader:
    folder = glob.escape(str(store.find(self.generated)))
    return self.generated.reader(f'{folder}/{self.generated.lines}', source=self.source)
