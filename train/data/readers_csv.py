"""Tables of comma- or tab-separated values whose first row names the columns (RFC 4180)."""

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from model.errors import DataError
from train.data.document import Document
from train.data.files import decode, name_of, read_bytes
from train.data.readers import JsonLines, empty
from train.data.readers_form import CSV, refusal

MEND = 'mend the row, or let `tolerate` leave it out'
SEPARATORS = {'\t': 'name the file .tsv', ';': 'write it with commas, for example with csvformat -d ";"'}


@dataclass(frozen=True)
class CsvFiles(JsonLines):
  """One document for each row below the header of the files that match `pattern`; a name with .tsv is one of tabs.

  Columns are fields as in JSON lines; the id of a row is its file and the line that it ends on.
  """

  _: KW_ONLY
  source: str = 'csv'

  def within(self, path: Path) -> Iterator[Document | DataError]:
    csv.field_size_limit(sys.maxsize)                   # or a text of over 128 KiB would end the file
    data = read_bytes(path)
    if other := refusal(path, CSV, data, guess=False):
      raise other
    stream = io.StringIO(decode(data, str(path)), newline='')
    rows = csv.reader(stream, strict=True, delimiter='\t' if '.tsv' in path.suffixes else ',')
    header = next(_rows(rows, path), [])
    bare = True
    for row in _rows(rows, path):
      record = self._row(header, row, f'{path}:{rows.line_num}', f'{name_of(path, self.pattern)}:{rows.line_num}')
      if bare and isinstance(record, DataError) and (other := _separated(header, path) or refusal(path, CSV, data)):
        raise other
      bare = False
      yield record
    if bare:
      raise empty(path, 'row below its header')

  def _row(self, header: list[str], row: list[str], where: str, name: str) -> Document | DataError:
    if len(row) != len(header):
      return DataError('data.bad-csv', where, f'the row has {len(row)} columns and the header {len(header)}', MEND)
    try:
      return self.document(dict(zip(header, row)), name, where)
    except DataError as error:
      return error


def _separated(header: list[str], path: Path) -> DataError | None:
  """The refusal of a header whose names are separated by what this file should not have."""
  mark, do = next(((mark, do) for mark, do in SEPARATORS.items() if any(mark in name for name in header)), ('', ''))
  return DataError('data.bad-csv', f'{path}: its header', f'its names are separated by {mark!r}', do) if mark else None


def _rows(rows, path: Path) -> Iterator[list[str]]:
  """The rows that are not blank. Raises: DataError where the quotes of a file leave no way to tell its rows."""
  try:
    yield from (row for row in rows if row)
  except csv.Error as error:
    raise DataError('data.bad-csv', f'{path}:{rows.line_num}', str(error),
                    'mend its quotes: one within a field is doubled') from error
