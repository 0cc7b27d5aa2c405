"""The preparation pass: documents through stages, in several processes; the result does not depend on their number.

Stages are cut into segments. The local ones of a segment run together in a worker, over chunks of documents; chunks
come back in the order in which they were dealt, so whatever has to see documents in order does so in the main process.
Memory holds a few chunks a worker, and what the `InOrder` stages remember.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

from model.errors import DataError, UserError
from train.artifact import Store
from train.data.document import Document, size
from train.data.stage import Batched, InOrder, Local, Outcome, Stage, dropped
from train.data.table import Table
from train.data.workers import in_order, processes

CHUNK_BYTES, CHUNK_DOCUMENTS = 1 << 20, 512
AHEAD = 3       # chunks dealt to each worker before the first must come back


class Segment(NamedTuple):
  """Local stages that run together in a worker, and the stage, if any, that closes the segment in the main process."""

  local: tuple[tuple[int, Local], ...]                  # with the place of each in the pass
  closing: tuple[int, InOrder | Batched] | None


def segments(stages: Sequence[Stage]) -> tuple[Segment, ...]:
  """The stages in segments, in their order."""
  found: list[Segment] = []
  local: list[tuple[int, Local]] = []
  for place, stage in enumerate(stages):
    if isinstance(stage, Local):
      local.append((place, stage))
    elif isinstance(stage, InOrder | Batched):
      found.append(Segment(tuple(local), (place, stage)))
      local = []
    else:
      raise TypeError(f'{stage!r} is no stage: it is neither Local, InOrder nor Batched')
  return (*found, Segment(tuple(local), None)) if local else tuple(found)


Signed = list[tuple[Document, Any]]     # documents that are left, and what the closing stage wants to remember of each


@dataclass(frozen=True)
class Work:
  """The local part of a segment, as a function from a chunk of documents to those left and to what happened."""

  segment: Segment

  @cached_property
  def functions(self) -> list[tuple[int, str, Callable[[Document], Outcome]]]:
    """Opened in the process that uses them, once."""
    return [(place, stage.name, stage.open()) for place, stage in self.segment.local]

  def __call__(self, chunk: list[Document]) -> tuple[Signed, Table]:
    table = Table()
    closing = self.segment.closing[1] if self.segment.closing else None
    sign = closing.sign if isinstance(closing, InOrder) else lambda document: None
    return [(left, sign(left)) for document in chunk for left in self._through(document, table)], table

  def _through(self, document: Document, table: Table) -> list[Document]:
    alive = [document]
    for place, name, function in self.functions:
      outcomes = [(one, _applied(name, function, one)) for one in alive]
      for one, outcome in outcomes:
        table.note(place, name, one, outcome)
      alive = [left for _, outcome in outcomes for left in outcome.documents]
    return alive


def _applied(name: str, function: Callable[[Document], Outcome], document: Document) -> Outcome:
  try:
    return function(document)
  except UserError:
    raise
  except Exception as error:
    raise DataError('data.stage-failed', f'{name} on document {document.id!r} of {document.source}',
                    f'{type(error).__name__}: {error}', 'mend the stage, or leave the document out') from error


_works: list[Work] = []       # of this worker process


def _equip(works: list[Work]) -> None:
  _works[:] = works


def _worked(index: int, chunk: list[Document]) -> tuple[Signed, Table]:
  return _works[index](chunk)


class Pass:
  """A pass over documents. A context manager; `run` may be called once."""

  def __init__(self, stages: Sequence[Stage], workers: int, store: Store):
    self.stages, self.workers, self.store = tuple(stages), workers, store
    self.table = Table()
    self._segments = segments(self.stages)
    self._works = [Work(segment) for segment in self._segments]
    self._closing = ExitStack()

  def __enter__(self) -> 'Pass':
    self._pool = None
    if self.workers > 1:
      self._pool = self._closing.enter_context(processes(self.workers, _equip, (self._works,)))
    return self

  def __exit__(self, *_) -> None:
    self._closing.close()

  def run(self, documents: Iterable[Document]) -> Iterator[Document]:
    """The documents that are left, in order; `table` holds what happened once all are taken."""
    stream = iter(documents)
    for index in range(len(self._segments)):
      stream = self._through(index, stream)
    return stream

  def _through(self, index: int, documents: Iterator[Document]) -> Iterator[Document]:
    closing = self._segments[index].closing
    signed = self._map(index, documents)
    if closing is None:
      yield from (document for document, _ in signed)
    elif isinstance(closing[1], InOrder):
      yield from self._judged(closing[0], closing[1], signed)
    else:
      yield from self._batched(closing[0], closing[1], (document for document, _ in signed))

  def _judged(self, place: int, stage: InOrder, signed: Iterable[tuple[Document, Any]]) -> Iterator[Document]:
    judge = stage.open()
    for document, sign in signed:
      reason = judge(sign)
      if reason is None:
        yield document
      else:
        self.table.note(place, stage.name, document, dropped(document, reason))

  def _batched(self, place: int, stage: Batched, documents: Iterator[Document]) -> Iterator[Document]:
    function = stage.open(self.store)
    for batch in chunks(documents, stage.batch):
      for document, outcome in zip(batch, function(batch), strict=True):
        self.table.note(place, stage.name, document, outcome)
        yield from outcome.documents

  def _map(self, index: int, documents: Iterator[Document]) -> Iterator[tuple[Document, Any]]:
    dealt = chunks(documents, CHUNK_DOCUMENTS, CHUNK_BYTES)
    done = (in_order(self._pool, partial(_worked, index), dealt, AHEAD * self.workers) if self._pool
            else map(self._works[index], dealt))
    for signed, table in done:
      self.table.merge(table)
      yield from signed


def chunks(documents: Iterable[Document], most: int, bytes: int | None = None) -> Iterator[list[Document]]:
  """The documents in lists of at most `most`, which are closed early once they hold `bytes`."""
  chunk: list[Document] = []
  held = 0
  for document in documents:
    chunk.append(document)
    held += size(document.text)
    if len(chunk) >= most or (bytes is not None and held >= bytes):
      yield chunk
      chunk, held = [], 0
  if chunk:
    yield chunk
