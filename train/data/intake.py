"""The documents of all sources, in a stable order and under unique ids, and the hashes of the files they were read from."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from model.errors import DataError
from train.data.document import Document
from train.data.files import sha256_of
from train.data.readers import Reader
from train.data.stage import dropped
from train.data.table import READ, Table


class Intake:
  """Reads sources one after another, and counts in `table` what was read and left out; `warnings` says what is odd."""

  def __init__(self, sources: Sequence[Reader], table: Table):
    self.sources, self.table = sources, table
    self._seen: Counter[str] = Counter()
    self._again = 0

  def documents(self) -> Iterator[Document]:
    """The documents in stable order. Raises: DataError as the readers do."""
    for source in self.sources:
      for document in source.read(self._leave_out):
        self.table.read.add(document)
        document = self._named(document)
        if document.text.strip():
          yield document
        else:
          self.table.note(READ, 'read', document, dropped(document, 'no text'))

  def warnings(self) -> list[str]:
    """One line for each kind of oddity, with its count; complete once all documents are read."""
    left_out = self.table.total('left out').documents
    return ([f'{self._again} documents had an id that stood before; theirs were numbered'] if self._again else []) + (
      [f'{left_out} broken records were left out'] if left_out else [])

  def _leave_out(self, error: DataError) -> None:
    self.table.left_out(error.what, error.id)

  def _named(self, document: Document) -> Document:
    """The document under an id that no other has: what is drawn at random is drawn by id."""
    self._seen[document.id] += 1
    count = self._seen[document.id]
    if count == 1:
      return document
    self._again += 1
    return self._named(replace(document, id=f'{document.id}~{count}'))


def fingerprints(files: Sequence[tuple[str, Path]]) -> list[dict]:
  """Size, time and sha256 of each file, under the name of what read it."""
  return [{'for': reader, 'file': str(path), 'bytes': path.stat().st_size, 'changed_ns': path.stat().st_mtime_ns,
           'sha256': sha256_of(path)} for reader, path in files]


def twins(prints: Sequence[dict]) -> list[str]:
  """A warning if some files of the sources are the same to the byte. One that several sources read is one file."""
  files: dict[str, list[str]] = {}
  for file, sha256 in {entry['file']: entry['sha256'] for entry in prints}.items():
    files.setdefault(sha256, []).append(file)
  again = [same for same in files.values() if len(same) > 1]
  if not again:
    return []
  extra = sum(len(same) - 1 for same in again)
  return [f'{extra} files repeat another byte for byte: {again[0][1]} is {again[0][0]}']


def changed(prints: Sequence[dict]) -> list[str]:
  """The files that are no longer what they were: gone, of another size, or touched since and of another sha256."""
  return [entry['file'] for entry in prints if _differs(Path(entry['file']), entry)]


def _differs(path: Path, entry: dict) -> bool:
  if not path.exists() or path.stat().st_size != entry['bytes']:
    return True
  return path.stat().st_mtime_ns != entry['changed_ns'] and sha256_of(path) != entry['sha256']
