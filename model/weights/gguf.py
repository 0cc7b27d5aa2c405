"""GGUF files, llama.cpp's: metadata and tensors, many of these in blocks of few bits (`model.weights.blocks`). Read lazily.

Nothing in a header is believed: every count, length and place is compared with the file before anything is allocated.
"""

import math
import mmap
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from model.errors import DataError
from model.weights.blocks import FORMATS, Format
from model.weights.tensor import Slices, Tensor

MAGIC, VERSIONS = b'GGUF', (2, 3)
STRING, ARRAY = 8, 9
NUMBERS: dict[int, np.dtype] = {code: np.dtype(kind) for code, kind in {
  0: '<u1', 1: '<i1', 2: '<u2', 3: '<i2', 4: '<u4', 5: '<i4', 6: '<f4', 7: '?', 10: '<u8', 11: '<i8', 12: '<f8'}.items()}
LEAST = {STRING: 8, ARRAY: 12} | {code: kind.itemsize for code, kind in NUMBERS.items()}      # bytes of a value
LEAST_ENTRY, LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8
ALIGNMENT, ALIGNED = 'general.alignment', 32                 # bytes, where a file says nothing
LONGEST = 100_000_000             # bytes of a header: tens of times those of vocabularies of 250,000
MOST = 100_000                    # tensors, of which the largest models have thousands; each takes 1 kB of memory
DEEPEST = 3                       # arrays within arrays


class GGUF(NamedTuple):
  """`metadata` has Python's numbers, bools and strings, numpy arrays of numbers, and lists of strings or of arrays."""

  metadata: dict[str, Any]
  tensors: dict[str, Tensor]


def open_gguf(path: Path) -> GGUF:
  """What a file holds: its tensors are read as float32 whatever their type there, with numpy's order of dimensions.

  Raises: DataError that names what in the file is not as the format has it, or of a type that is not read here.
  """
  try:
    with path.open('rb') as file:
      if file.read(len(MAGIC)) != MAGIC:
        raise DataError('weights.no-gguf', str(path), 'it does not begin with GGUF', 'check the path')
      with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        return _contents(_Header(path, held))
  except OSError as error:
    raise DataError('weights.missing', str(path), error.strerror or str(error), 'check the path') from None


class _Header:
  """The bytes of a file, and how many of them were read."""

  def __init__(self, path: Path, held: mmap.mmap):
    self.path, self.held, self.at = path, held, len(MAGIC)

  def refuse(self, field: str, why: str) -> NoReturn:
    raise DataError('weights.damaged', f'{self.path}: {field}', why, 'fetch the file again, or have it written anew')

  def expect(self, field: str, count: int, each: int) -> None:
    """Raises: DataError unless so many things, of so many bytes each at least, can still come."""
    if count * each > min(len(self.held), LONGEST) - self.at:
      self.refuse(f'{field}: {count:,} of {each} bytes or more, from byte {self.at:,} on',
                  f'the file has {len(self.held):,}, and headers at most {LONGEST:,}')

  def take(self, field: str, count: int, each: int) -> bytes:
    self.expect(field, count, each)
    begin, self.at = self.at, self.at + count * each
    return self.held[begin:self.at]

  def whole(self, field: str, width: int = 8) -> int:
    """A whole number of so many bytes: a length, a count, a place or a code."""
    return int.from_bytes(self.take(field, 1, width), 'little')

  def text(self, field: str) -> str:
    try:
      return self.take(field, self.whole(field), 1).decode()
    except UnicodeDecodeError as error:
      self.refuse(field, f'it is no UTF-8: {error.reason}, before byte {self.at:,}')

  def numbers(self, field: str, kind: np.dtype, count: int) -> np.ndarray:
    data = self.take(field, count, kind.itemsize)
    if kind.kind == 'b' and any(data.translate(None, b'\0\1')):
      self.refuse(field, 'it is true or false, and neither is here')
    return np.frombuffer(data, kind)

  def code(self, field: str) -> int:
    """The type of a value."""
    code = self.whole(field, 4)
    if code not in LEAST:
      self.refuse(f'{field}: type {code}', f'types of values are 0 to {max(LEAST)}')
    return code

  def value(self, field: str, code: int, depth: int = 0) -> Any:
    if code in NUMBERS:
      return self.numbers(field, NUMBERS[code], 1)[0].item()
    return self.text(field) if code == STRING else self.array(field, depth + 1)

  def array(self, field: str, depth: int) -> np.ndarray | list[Any]:
    if depth > DEEPEST:
      self.refuse(field, f'arrays lie within arrays, more than {DEEPEST} deep')
    code, count = self.code(field), self.whole(field)
    if code in NUMBERS:
      return self.numbers(field, NUMBERS[code], count)
    self.expect(field, count, LEAST[code])
    return [self.value(field, code, depth) for _ in range(count)]


def _contents(header: _Header) -> GGUF:
  _check_version(header)
  count, pairs = header.whole('count of tensors'), header.whole('count of metadata')
  metadata = _metadata(header, pairs)
  aligned = metadata.get(ALIGNMENT, ALIGNED)
  if type(aligned) is not int or aligned < 1 or aligned & (aligned - 1):
    header.refuse(f'metadata {ALIGNMENT!r}: {aligned!r:.60}', 'it is a power of two')
  entries = _entries(header, count, aligned)
  begin = header.at + -header.at % aligned
  _check_places(header, entries, begin)
  return GGUF(metadata, {name: Tensor(name, entry.shape, np.dtype(np.float32), _reader(header.path, begin, entry))
                         for name, entry in entries.items()})


def _check_version(header: _Header) -> None:
  version = header.whole('version', 4)
  if version not in VERSIONS:
    turned = int.from_bytes(version.to_bytes(4, 'little'), 'big') in VERSIONS
    raise DataError('weights.gguf-version', f'{header.path}: version {version}',
                    'its numbers are big-endian' if turned else f'versions {VERSIONS[0]} and {VERSIONS[1]} are read',
                    "fetch the model as little-endian GGUF of version 3, or make it again with llama.cpp's converter")


def _metadata(header: _Header, count: int) -> dict[str, Any]:
  header.expect('metadata', count, LEAST_ENTRY)
  metadata: dict[str, Any] = {}
  for number in range(count):
    key = header.text(f'key {number}')
    field = f'metadata {key!r:.60}'
    if key in metadata:
      header.refuse(field, 'it is there twice')
    metadata[key] = header.value(field, header.code(field))
  return metadata


class _Entry(NamedTuple):
  shape: tuple[int, ...]
  format: Format
  begin: int                      # from where the tensors begin
  end: int


def _entries(header: _Header, count: int, aligned: int) -> dict[str, _Entry]:
  header.expect('tensors', count, LEAST_TENSOR)
  if count > MOST:
    header.refuse(f'{count:,} tensors', f'more than {MOST:,} are not read')
  entries: dict[str, _Entry] = {}
  for number in range(count):
    name = header.text(f'name of tensor {number}')
    field = f'tensor {name!r:.60}'
    if name in entries:
      header.refuse(field, 'it is there twice')
    entries[name] = _entry(header, field, aligned)
  return entries


def _entry(header: _Header, field: str, aligned: int) -> _Entry:
  if not 1 <= (dimensions := header.whole(field, 4)) <= 4:
    header.refuse(f'{field}: {dimensions} dimensions', 'tensors have 1 to 4')
  shape = tuple(header.whole(field) for _ in range(dimensions))[::-1]       # files begin with the innermost
  code, begin = header.whole(field, 4), header.whole(field)
  if code not in FORMATS:
    names = ', '.join(format.name for format in FORMATS.values())
    raise DataError('weights.gguf-type', f'{header.path}: {field}: type {code}', f'those that are read are {names}',
                    'fetch the model in another type, such as Q8_0 or F16')
  format = FORMATS[code]
  if not all(shape) or shape[-1] % format.size:
    header.refuse(f'{field}: shape {shape}', f'none is empty, and rows of {format.name} have a multiple of {format.size}')
  if begin % aligned:
    header.refuse(f'{field}: it begins at {begin:,}', f'tensors begin at multiples of {aligned}')
  return _Entry(shape, format, begin, begin + math.prod(shape) // format.size * format.block.itemsize)


def _check_places(header: _Header, entries: dict[str, _Entry], begin: int) -> None:
  """Raises: DataError where tensors overlap, or go beyond the file."""
  end = 0
  for name, entry in sorted(entries.items(), key=lambda item: item[1].begin):
    if entry.begin < end:
      header.refuse(f'tensor {name!r:.60} begins at {entry.begin:,}', f'the one before ends at {end:,}')
    end = entry.end
    if begin + end > len(header.held):
      header.refuse(f'tensor {name!r:.60}: {entry.format.name} {entry.shape} from byte {begin + entry.begin:,} on',
                    f'it has {end - entry.begin:,} bytes, and the file {len(header.held):,}')


def _reader(path: Path, begin: int, entry: _Entry):
  *rows, length = entry.shape
  size = entry.format.size

  def read(slices: Slices) -> np.ndarray:
    first, last, _ = (slices[len(rows)] if len(slices) > len(rows) else slice(None)).indices(length)
    place: tuple[Any, ...] = (*slices[:len(rows)], ..., slice(first // size, -(-last // size)))
    try:
      mapped = np.memmap(path, entry.format.block, 'r', begin + entry.begin, (*rows, length // size))
    except (OSError, ValueError) as error:
      raise DataError('weights.damaged', f'{path}: {error}', 'it was changed since its header was read',
                      'load it again') from None
    x = entry.format.read(np.asarray(mapped[place]))
    return x.reshape(*x.shape[:-2], x.shape[-2] * size)[..., first % size:][..., :max(last - first, 0)]

  return read
