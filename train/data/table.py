"""The table of a preparation pass: what was dropped, changed and added, by which stage and why.

Its laws: documents read, less those dropped, plus those added, are the documents written; and the same for bytes, where
changes count too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.table import Table as Drawn

from train.data.document import Document, size
from train.data.stage import Outcome

EXAMPLES = 3
READ = -1      # the place of reading: before the first stage
Key = tuple[int, str, str, str]     # place of the stage, its name, effect, reason


@dataclass
class Row:
  """How often one thing happened, and to which documents first."""

  documents: int = 0
  places: int = 0
  bytes: int = 0
  examples: list[str] = field(default_factory=list)

  def add(self, documents: int, places: int, bytes: int, examples: list[str]) -> None:
    self.documents += documents
    self.places += places
    self.bytes += bytes
    self.examples = (self.examples + examples)[:EXAMPLES]


@dataclass
class Count:
  """Documents and their bytes."""

  documents: int = 0
  bytes: int = 0

  def add(self, document: Document) -> None:
    self.documents += 1
    self.bytes += size(document.text)

  def json(self) -> dict:
    return {'documents': self.documents, 'bytes': self.bytes}


@dataclass
class Table:
  """Rows by stage and reason, and what came in and went out."""

  rows: dict[Key, Row] = field(default_factory=dict)
  read: Count = field(default_factory=Count)
  written: dict[tuple[str, str], Count] = field(default_factory=dict)      # by source and split

  def note(self, place: int, stage: str, document: Document, outcome: Outcome) -> None:
    """Records what a stage made of a document."""
    for reason in outcome.reasons:
      row = self.rows.setdefault((place, stage, outcome.effect, reason.name), Row())
      row.add(max(1, len(outcome.documents) - 1), reason.places, reason.bytes, [document.id])

  def left_out(self, what: str, reason: str) -> None:
    """Records a record that never became a document."""
    self.rows.setdefault((READ, 'read', 'left out', reason), Row()).add(1, 1, 0, [what])

  def wrote(self, document: Document, split: str) -> None:
    self.written.setdefault((document.source, split), Count()).add(document)

  def merge(self, other: 'Table') -> None:
    """Adds the rows that a worker kept. Chunks are merged in their order, so the examples are always the first ones."""
    for key, row in other.rows.items():
      self.rows.setdefault(key, Row()).add(row.documents, row.places, row.bytes, row.examples)

  def total(self, effect: str) -> Count:
    rows = [row for key, row in self.rows.items() if key[2] == effect]
    return Count(sum(row.documents for row in rows), sum(row.bytes for row in rows))

  def json(self, stages: Sequence[str]) -> dict:
    """The table as JSON, of a pass with stages of these names: the same bytes for any number of workers."""
    rows = [{'place': place, 'stage': stage, 'effect': effect, 'reason': reason, 'documents': row.documents,
             'places': row.places, 'bytes': row.bytes, 'examples': row.examples}
            for (place, stage, effect, reason), row in sorted(self.rows.items())]
    written = [{'source': source, 'split': split} | count.json()
               for (source, split), count in sorted(self.written.items())]
    return {'stages': list(stages), 'read': self.read.json(), 'rows': rows, 'written': written}


def drawn(table: dict, title: str) -> Drawn:
  """The table of `Table.json()` for people to read."""
  picture = Drawn(title=title, title_justify='left')
  for name in ('stage', 'what', 'documents', 'places', 'bytes', 'for example'):
    picture.add_column(name, justify='right' if name in ('documents', 'places', 'bytes') else 'left', no_wrap=name == 'stage')
  for cells in _cells(table):
    picture.add_row(*cells)
  return picture


def _cells(table: dict) -> Iterator[tuple[str, ...]]:
  yield 'read', '', f'{table["read"]["documents"]:,}', '', f'{table["read"]["bytes"]:,}', ''
  for place, stage in enumerate(('read', *table['stages']), READ):
    rows = [row for row in table['rows'] if row['place'] == place]
    for row in rows:
      yield (stage, f'{row["effect"]}: {row["reason"]}', f'{row["documents"]:,}', f'{row["places"]:,}',
             f'{row["bytes"]:+,}', row['examples'][0])
    if not rows and place != READ:
      yield stage, 'kept all', '', '', '', ''
  for row in table['written']:
    yield 'written', f'{row["split"]} of {row["source"]}', f'{row["documents"]:,}', '', f'{row["bytes"]:,}', ''
