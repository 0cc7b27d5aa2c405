"""Readers: where documents come from. This file has the socket, and plain text and JSON lines.

A reader is a frozen value; `read()` gives its documents, always in the same order. A record that cannot be used (a line
that is no JSON, a text that is no UTF-8) is an error by name and number; up to `tolerate` of them are left out instead,
and counted.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from model.errors import DataError
from train.artifact import Store
from train.data.document import Document
from train.data.files import decode, expand, name_of, read_bytes, read_lines, whole
from train.data.readers_form import JSON_LINES, TEXT, refusal


@dataclass(frozen=True, kw_only=True)
class Reader(ABC):
  """A source of documents. `source` names it in mixtures; up to `tolerate` broken records are left out."""

  source: str
  tolerate: int = 0

  @abstractmethod
  def files(self) -> list[Path]:
    """The files behind the source, for the manifest. Raises: DataError if there are none."""

  @abstractmethod
  def records(self) -> Iterator[Document | DataError]:
    """The documents in order; in the place of a record that cannot be used, the error that names it."""

  def read(self, leave_out: Callable[[DataError], None] = lambda error: None) -> Iterator[Document]:
    """The documents in order; `leave_out` is told each record that is tolerated.

    Raises: DataError for the first broken record beyond `tolerate`, and if there is not a single document.
    """
    found, broken = 0, 0
    for record in self.records():
      if isinstance(record, Document):
        found += 1
        yield record
        continue
      broken += 1
      if broken > self.tolerate:
        raise _one_too_many(record, broken)
      leave_out(record)
    if not found:
      raise DataError('data.no-documents', f'source {self.source!r}: {self}',
                      f'it holds no usable document ({broken} records were left out)', 'point it at files with text')


class Written(ABC):
  """A source that an artifact among its fields wrote: once that is made, there is a reader of its files."""

  @abstractmethod
  def reader(self, store: Store) -> Reader:
    """What reads them. Raises: DataError if the artifact is not made."""


def _one_too_many(error: DataError, broken: int) -> DataError:
  if broken == 1:
    return error
  return DataError(error.id, error.what, f'{error.why}; it is broken record {broken}, one more than is tolerated',
                   'mend the records, or raise `tolerate`')


def guarded(records: Iterator[Document | DataError]) -> Iterator[Document | DataError]:
  """The records of one file; if reading it breaks, the error is its last record, and the next file can be read."""
  try:
    yield from records
  except DataError as error:
    yield error


def empty(path: Path, what: str) -> DataError:
  """The refusal of a file with nothing in it."""
  return DataError('data.empty-file', str(path), f'the file holds no {what}',
                   'remove it, or let `tolerate` leave it out')


@dataclass(frozen=True)
class Matching(Reader):
  """The documents of the files that match `pattern`, file after file."""

  pattern: str

  @abstractmethod
  def within(self, path: Path) -> Iterator[Document | DataError]:
    """Those of one file, as `records`. Raises: DataError where the file cannot be read on; the next one can."""

  def files(self) -> list[Path]:
    return expand(self.pattern)

  def records(self) -> Iterator[Document | DataError]:
    for path in self.files():
      yield from guarded(self.within(path))


@dataclass(frozen=True)
class TextFiles(Matching):
  """One document for each file of UTF-8 that matches `pattern`; gzip is unpacked, a byte order mark left out.

  What is named as JSON lines or CSV is refused: it would be one document, quotes and commas and all.
  """

  _: KW_ONLY
  source: str = 'text'

  def within(self, path: Path) -> Iterator[Document]:
    data = read_bytes(path)
    if other := refusal(path, TEXT, data, guess=False):
      raise other
    text = decode(data, str(path))
    if not text.strip():
      raise empty(path, 'text')
    yield Document(text, self.source, name_of(path, self.pattern))


@dataclass(frozen=True)
class Lines(Matching):
  """One document for each line of the files that match `pattern`: an object of JSON, whatever stands in it."""

  @abstractmethod
  def document(self, record: dict, name: str, where: str) -> Document:
    """What a record says; `name` is its file:line below the pattern, `where` the same for an error."""

  def within(self, path: Path) -> Iterator[Document | DataError]:
    bare = True
    for number, line in read_lines(path):
      if line.strip():
        record = self._line(path, number, line)
        if bare and isinstance(record, DataError) and (other := refusal(path, JSON_LINES)):
          raise other
        bare = False
        yield record
    if bare:
      raise empty(path, 'record')

  def _line(self, path: Path, number: int, line: bytes) -> Document | DataError:
    where = f'{path}:{number}'
    try:
      record = parse(decode(line, where), where)
      return self.document(record, f'{name_of(path, self.pattern)}:{number}', where)
    except DataError as error:
      return error


@dataclass(frozen=True)
class JsonLines(Lines):
  """One document for each line of the files that match `pattern`: an object whose `field` is the text.

  `id_field` names the record's own id; without it the id is file:line. Fields named in `meta` are kept as strings.
  """

  field: str = 'text'
  id_field: str | None = None
  meta: tuple[str, ...] = ()
  _: KW_ONLY
  source: str = 'jsonl'

  def document(self, record: dict, name: str, where: str) -> Document:
    text = whole(text_in(record, self.field, where), where)
    meta = {name: whole(str(record[name]), where) for name in self.meta if name in record}
    own = record.get(self.id_field) if self.id_field else None
    return Document(text, self.source, name if own is None else whole(str(own), where), meta)


def parse(line: str, where: str) -> dict:
  """The JSON object of one line. Raises: DataError naming file:line:column."""
  try:
    record = json.loads(line)
  except (ValueError, RecursionError) as error:     # RecursionError: brackets in brackets, a thousand deep
    column = getattr(error, 'colno', 1)
    raise DataError('data.bad-json', f'{where}:{column}', f'the line is no JSON: {getattr(error, "msg", error)}',
                    'mend or remove the line, or let `tolerate` leave it out') from error
  if not isinstance(record, dict):
    raise DataError('data.bad-json', where, f'a record must be an object and this is {type(record).__name__}',
                    'write one {...} a line')
  return record


def text_in(record: dict, field: str, where: str) -> str:
  """The text in a record's field. Raises: DataError if the field is not there, null, or no string."""
  if field not in record:
    longest = max((name for name in record if isinstance(record[name], str)), key=lambda name: len(record[name]), default='')
    raise DataError('data.no-such-field', f'{where}: field {field!r}',
                    f'the record has {", ".join(map(repr, sorted(record))) or "no field at all"}',
                    'put the text there, or name the field that holds it' + (f', perhaps {longest!r}' if longest else ''))
  if not isinstance(record[field], str):
    kind = 'null' if record[field] is None else type(record[field]).__name__
    raise DataError('data.no-text', f'{where}: field {field!r}', f'its value is {kind}, not text',
                    'mend or remove the record, or let `tolerate` leave it out')
  return record[field]
