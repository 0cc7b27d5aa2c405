"""Prepared documents on disk: JSON lines, in shards whose bytes depend on the documents and their order alone."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from model.errors import DataError
from train.data.document import Document, Split, from_line, to_line

SHARD_BYTES = 128 << 20     # a shard is closed once it holds as much


class Shard:
  """One file while it is written."""

  def __init__(self, folder: Path, split: Split, number: int):
    self.split, self.name = split, f'{split}-{number:05d}.jsonl'
    self._file: BinaryIO = (folder / self.name).open('wb')
    self._hash = hashlib.sha256()
    self.documents, self.bytes = 0, 0

  def write(self, document: Document) -> None:
    line = to_line(document).encode()
    self._file.write(line)
    self._hash.update(line)
    self.documents += 1
    self.bytes += len(line)

  def close(self) -> dict:
    """What the manifest keeps of the file."""
    self._file.close()
    return {'file': self.name, 'split': self.split, 'documents': self.documents, 'bytes': self.bytes,
            'sha256': self._hash.hexdigest()}


class Shards:
  """Writes documents, each split in shards of its own, in the order given. A context manager."""

  def __init__(self, folder: Path):
    self.folder = folder
    self.written: list[dict] = []       # what the manifest keeps, once closed
    self._open: dict[Split, Shard] = {}
    self._next: dict[Split, int] = {}

  def write(self, document: Document, split: Split) -> None:
    if split not in self._open:
      number = self._next.get(split, 0)
      self._next[split] = number + 1
      self._open[split] = Shard(self.folder, split, number)
    self._open[split].write(document)
    if self._open[split].bytes >= SHARD_BYTES:
      self.written.append(self._open.pop(split).close())

  def __enter__(self) -> 'Shards':
    return self

  def __exit__(self, *_) -> None:
    self.written += [shard.close() for shard in self._open.values()]
    self._open.clear()
    self.written.sort(key=lambda shard: shard['file'])


def read_shard(folder: Path, shard: dict) -> Iterator[Document]:
  """The documents of one shard of a manifest, in order.

  Raises: DataError at once if the file has another size than was written, and at its end if it has other bytes.
  """
  path = folder / shard['file']
  found = path.stat().st_size if path.exists() else 0
  if found != shard['bytes']:
    raise _changed(path, f'it has {found:,} bytes, and {shard["bytes"]:,} were written')
  hash = hashlib.sha256()
  with path.open('rb') as file:
    for number, line in enumerate(file, 1):
      hash.update(line)
      try:
        yield from_line(line)
      except (ValueError, TypeError) as error:
        raise _changed(f'{path}:{number}', 'the line is no document') from error
  if hash.hexdigest() != shard['sha256']:
    raise _changed(path, 'its sha256 is not the one that was written')


def _changed(where: Path | str, why: str) -> DataError:
  return DataError('data.corpus-changed', str(where), why, 'remove the folder of the corpus and launch again')
