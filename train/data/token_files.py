"""Tokens on disk: per split one flat array of ids, where each document begins, and a manifest that says what they are.

    train.npy           u16 or u32[tokens], mapped into memory: documents end to end
    train.offsets.npy   i64[documents + 1]: where each begins; the last is the number of tokens
    train.sources.npy   i32[documents]: which of the manifest's sources each comes from
    train.mask.npy      u8[tokens]: 1 where a token is to be learnt; only of documents that say so, like conversations
    train.ids.jsonl     the id of each document, a line each
    bytes_of.npy        i32[V]: the bytes of text that each token id stands for
    manifest.json       the tokenizer, its control tokens, the sources, and counts and a sha256 for each split
"""

import hashlib
import itertools
import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import DataError
from train.data.document import Split
from train.data.encoding import Encoded
from train.data.pack import Span, fill, lay

MANIFEST, BYTES_OF = 'manifest.json', 'bytes_of.npy'


@dataclass(frozen=True)
class TokenSplit:
  """One split, open and verified."""

  folder: Path
  split: Split
  ids: np.ndarray                        # u16 or u32[tokens], in a file
  offsets: np.ndarray                    # i64[documents + 1]
  source_of: np.ndarray                  # i32[documents]
  bytes_of: np.ndarray                   # i32[V]
  manifest: dict[str, Any]
  mask: np.ndarray | None = None         # u8[tokens]: what is to be learnt; None: all

  def row(self, spans: list[Span], starts: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """tokens, segments i32[length + 1], as `pack.fill` lays them, and mask f32[length + 1] where there is one."""
    row = fill(spans, self.ids, starts, length)
    return row if self.mask is None else row | {'mask': lay(spans, self.mask, starts, length).astype(np.float32)}

  def masked(self) -> 'TokenSplit':
    """The same with a mask: its own, or else one in which every token is to be learnt."""
    return self if self.mask is not None else replace(self, mask=np.broadcast_to(np.uint8(1), self.ids.shape))

  @property
  def sha256(self) -> str:
    """What identifies all that is in it."""
    return self.manifest['splits'][self.split]['sha256']

  def documents(self, source: str | None = None) -> np.ndarray:
    """The numbers of all its documents, or of one source's, i64[documents].

    Raises: DataError if there is no such source.
    """
    if source is None:
      return np.arange(len(self.offsets) - 1)
    if source not in self.manifest['sources']:
      raise DataError('mixture.unknown-source', f'source {source!r} of {self.folder}',
                      f'its documents come from {", ".join(self.manifest["sources"])}', 'name one of these')
    return np.flatnonzero(self.source_of == self.manifest['sources'].index(source))

  def describe(self, document: int) -> str:
    """`source:id` of a document, for a person."""
    with (self.folder / f'{self.split}.ids.jsonl').open() as lines:
      id = json.loads(next(itertools.islice(lines, document, None)))
    return f'{self.manifest["sources"][self.source_of[document]]}:{id}'


def write_split(folder: Path, split: Split, documents: Iterable[Encoded], bytes_of: np.ndarray,
                sources: list[str]) -> dict[str, Any]:
  """Writes the files of a split and gives its part of the manifest; names new to `sources` are added to it.

  Either all documents bring a mask or none does. Raises: DataError that names the first document with an id that the
  tokenizer does not have.
  """
  kind = np.dtype('<u2' if len(bytes_of) <= 1 << 16 else '<u4')
  offsets, source_of, size, learnt = array('q', [0]), array('i'), 0, 0
  with (Column(folder / f'{split}.npy', kind) as tokens, Column(folder / f'{split}.mask.npy', np.dtype('u1')) as masks,
        (folder / f'{split}.ids.jsonl').open('w') as lines):
    for source, id, ids, mask in documents:
      _check_range(ids, len(bytes_of), f'document {len(source_of)} ({source}:{id})')
      tokens.add(ids)
      if mask is not None:
        masks.add(mask)
        learnt += int(mask.sum())
      size += int(bytes_of[ids].sum())
      offsets.append(offsets[-1] + len(ids))
      source_of.append(_number(sources, source))
      lines.write(json.dumps(id) + '\n')
  assert masks.count in (0, tokens.count), 'some tokens have no mask'
  if not masks.count:
    masks.path.unlink()
  np.save(folder / f'{split}.offsets.npy', np.array(offsets, np.int64))
  np.save(folder / f'{split}.sources.npy', np.array(source_of, np.int32))
  masked = {'learnt': learnt} if masks.count else {}
  return {'documents': len(source_of), 'tokens': offsets[-1], 'bytes': size, **masked,
          'sha256': _sha256(*_arrays(folder, split), bytes_of, *_masks(folder, split, masked))}


def open_split(folder: Path, split: Split) -> TokenSplit:
  """The split, after all of it was read once and compared with the manifest's sha256: about a second a gigabyte.

  Raises: DataError if a file is missing, is not what was written, or holds an id that the tokenizer does not have.
  """
  try:
    manifest = json.loads((folder / MANIFEST).read_text())
    ids, offsets, source_of = _arrays(folder, split)
    bytes_of = np.load(folder / BYTES_OF)
    wanted = manifest['splits'][split]['sha256']
    masks = _masks(folder, split, manifest['splits'][split])
  except (OSError, ValueError, KeyError) as error:
    raise DataError('data.damaged', f'{split} tokens in {folder}: {error}', 'a file is missing or cannot be read',
                    'delete the folder and launch again to make it anew') from None
  found = _sha256(ids, offsets, source_of, bytes_of, *masks)
  if found != wanted:
    raise DataError('data.changed', f'{split} tokens in {folder}: sha256 {found}',
                    f'they were written with sha256 {wanted}',
                    'put the file back, or delete the folder and launch again to make it anew')
  _check_all(ids, offsets, len(bytes_of), folder / f'{split}.npy')
  return TokenSplit(folder, split, ids, offsets, source_of, bytes_of, manifest, *masks)


def _arrays(folder: Path, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  tokens = np.load(folder / f'{split}.npy', mmap_mode='r')
  return tokens, np.load(folder / f'{split}.offsets.npy'), np.load(folder / f'{split}.sources.npy')


def _masks(folder: Path, split: Split, entry: dict[str, Any]) -> list[np.ndarray]:
  """The mask of a split, if its part of the manifest speaks of one."""
  return [np.load(folder / f'{split}.mask.npy', mmap_mode='r')] if 'learnt' in entry else []


def _sha256(*arrays: np.ndarray) -> str:
  hashed = hashlib.sha256()
  for each in arrays:
    hashed.update(f'{each.dtype.str}{each.shape}'.encode())
    hashed.update(each.view(np.uint8).data)
  return hashed.hexdigest()


def _check_range(ids: np.ndarray, size: int, where: str) -> None:
  if len(ids) and not 0 <= ids.min() <= ids.max() < size:
    place = int(np.flatnonzero((ids < 0) | (ids >= size))[0])
    raise DataError('data.token-out-of-range', f'{where}: token {place} is {ids[place]}',
                    f'the tokenizer has the ids 0 to {size - 1}', 'make the tokens again with that tokenizer')


def _check_all(ids: np.ndarray, offsets: np.ndarray, size: int, path: Path) -> None:
  """Looks at a whole file at once, and for the document only when there is something wrong."""
  if len(ids) and ids.max() >= size:
    document = int(np.searchsorted(offsets, int(np.argmax(ids >= size)), 'right')) - 1
    _check_range(ids[offsets[document]:offsets[document + 1]], size, f'{path}: document {document}')


def _number(names: list[str], name: str) -> int:
  if name not in names:
    names.append(name)
  return names.index(name)


class Column:
  """A flat .npy file that grows. Numpy leaves room in its header for the count, which is written again once it is known."""

  def __init__(self, path: Path, kind: np.dtype):
    self.path, self.kind, self.count = path, kind, 0

  def __enter__(self) -> 'Column':
    self.file = self.path.open('wb')
    self._header()
    return self

  def add(self, values: np.ndarray) -> None:
    self.file.write(values.astype(self.kind).tobytes())
    self.count += len(values)

  def __exit__(self, error: Any, *_: Any) -> None:
    with self.file:
      if error is None:
        self.file.seek(0)
        self._header()

  def _header(self) -> None:
    fields = {'descr': self.kind.str, 'fortran_order': False, 'shape': (self.count,)}
    np.lib.format.write_array_header_1_0(self.file, fields)
