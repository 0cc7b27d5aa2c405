"""Parquet files: one document for each row's text."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from model.errors import DataError
from train.data.document import Document
from train.data.files import name_of, whole
from train.data.readers import Matching, empty, text_in
from train.data.readers_form import HEAD, PARQUET, refusal

ROWS = 256      # rows decoded at once


@dataclass(frozen=True)
class Parquet(Matching):
  """One document for each row of the files that match `pattern`: the string in `column`; columns in `meta` are kept."""

  column: str = 'text'
  meta: tuple[str, ...] = ()
  _: KW_ONLY
  source: str = 'parquet'

  def within(self, path: Path) -> Iterator[Document | DataError]:
    number = 0
    for row in self._rows(path):
      number += 1
      yield self._row(path, number, row)
    if not number:
      raise empty(path, 'row')

  def _rows(self, path: Path) -> Iterator[dict]:
    import pyarrow as pa  # 0.2 s to load, and only Parquet needs it
    import pyarrow.parquet as pq
    try:
      with pq.ParquetFile(path) as file:
        wanted = [self.column, *self.meta]
        missing = [name for name in wanted if name not in file.schema_arrow.names]
        if missing:
          raise DataError('data.no-such-field', f'{path}: column {missing[0]!r}',
                          f'the file has {", ".join(map(repr, file.schema_arrow.names))}', 'name one of these')
        for batch in file.iter_batches(ROWS, columns=wanted):
          yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
      raise _other(path) or DataError('data.damaged-file', str(path), f'it cannot be read as Parquet ({error})',
                      'fetch or write the file again') from error

  def _row(self, path: Path, number: int, row: dict) -> Document | DataError:
    where = f'{path}: row {number}'
    try:
      text = whole(text_in(row, self.column, where), where)
    except DataError as error:
      return error
    meta = {name: str(row[name]) for name in self.meta if row[name] is not None}
    return Document(text, self.source, f'{name_of(path, self.pattern)}:{number}', meta)


def _other(path: Path) -> DataError | None:
  """The refusal of a file that is no Parquet at all; gzip, too, which is not unpacked here."""
  try:
    with path.open('rb') as stream:
      return refusal(path, PARQUET, stream.read(HEAD))
  except OSError:
    return None
