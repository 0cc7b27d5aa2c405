"""GGUF files are written: metadata, then where each tensor lies, then the tensors, one in memory at a time."""

import math
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from model.errors import ConfigError, DataError
from model.weights.blocks import WRITING, Writing
from model.weights.gguf import ALIGNED, ALIGNMENT, ARRAY, MAGIC, NUMBERS, STRING, VERSIONS
from model.weights.tensor import Tensor

CODES = {kind: code for code, kind in NUMBERS.items()}
PIECE = 1 << 18                   # numbers that are converted at once, so that what lies between fits into a cache
INFERRED: dict[type, np.dtype] = {bool: np.dtype('?'), int: np.dtype('<u4'), float: np.dtype('<f4')}


def write_gguf(path: Path, metadata: dict[str, Any], tensors: Iterable[Tensor], kind: str = 'F16') -> None:
  """Writes a file that llama.cpp can read, its matrices as F32, F16 or Q8_0; `path` appears when it is whole.

  Of metadata, Python's whole numbers become uint32, its other numbers float32, and numpy's what their type says: alone, in an
  array of one dimension, or in a list of one type, as strings may be too.

  Raises: ConfigError for an unknown kind, DataError for numbers that it cannot hold.
  """
  if kind not in WRITING:
    raise ConfigError('weights.gguf-kind', f'a file of {kind!r}', f'written are {", ".join(WRITING)}', 'choose one of them')
  aligned = int(metadata.get(ALIGNMENT, ALIGNED))
  places = _places(tensors, kind, aligned)
  header = MAGIC + struct.pack('<IQQ', VERSIONS[-1], len(places), len(metadata))
  header += b''.join(_text(key) + _value(value) for key, value in metadata.items()) + b''.join(map(_entry, places))
  part = path.with_name(f'.{path.name}.part')
  try:
    with part.open('wb') as file:
      for data in ([header], *map(_data, places)):
        file.writelines(data)
        file.write(bytes(-file.tell() % aligned))            # the last one's too: llama.cpp reads it
      file.flush()
      os.fsync(file.fileno())
    part.rename(path)
  finally:
    part.unlink(missing_ok=True)


def writing_of(shape: tuple[int, ...], kind: str) -> Writing:
  """How a tensor is stored in a file of this kind: a vector as F32, rows that blocks do not divide as F16.

  Both are what llama.cpp's converter does; its kernels want norms and biases in F32.
  """
  if len(shape) == 1:
    return WRITING['F32']
  return WRITING['F16' if shape[-1] % WRITING[kind].format.size else kind]


class _Place(NamedTuple):
  tensor: Tensor
  writing: Writing
  begin: int


def _places(tensors: Iterable[Tensor], kind: str, aligned: int) -> list[_Place]:
  """One after another: llama.cpp refuses gaps."""
  places, end = [], 0
  for tensor in tensors:
    writing, begin = writing_of(tensor.shape, kind), end + -end % aligned
    places.append(_Place(tensor, writing, begin))
    end = begin + math.prod(tensor.shape) // writing.format.size * writing.format.block.itemsize
  return places


def _data(place: _Place) -> Iterator[bytes]:
  """Piece after piece. Raises: DataError for numbers that are none, or that the format does not reach."""
  name, writing = place.tensor.name, place.writing
  x_NS = np.asarray(place.tensor.whole(), np.float32).reshape(-1, writing.format.size)
  step = PIECE // writing.format.size
  for piece_NS in (x_NS[begin:begin + step] for begin in range(0, len(x_NS), step)):
    found = float(np.abs(piece_NS).max())
    if not found <= writing.largest:                         # which no nan is
      raise DataError('weights.beyond-type', f'tensor {name!r:.60} holds {found:g}',
                      f'{writing.format.name} holds numbers up to {writing.largest:g}',
                      'write F32' if np.isfinite(found) else 'take an earlier checkpoint, for this one has diverged')
    yield writing.write(piece_NS).tobytes()


def _entry(place: _Place) -> bytes:
  shape = place.tensor.shape[::-1]
  return (_text(place.tensor.name) + struct.pack(f'<I{len(shape)}Q', len(shape), *shape)
          + struct.pack('<IQ', place.writing.format.code, place.begin))


def _text(text: str) -> bytes:
  data = text.encode()
  return struct.pack('<Q', len(data)) + data


def _value(value: Any) -> bytes:
  """A value's type, and the value."""
  if isinstance(value, str):
    return struct.pack('<I', STRING) + _text(value)
  if isinstance(value, list) and all(isinstance(each, str) for each in value):
    return struct.pack('<IIQ', ARRAY, STRING, len(value)) + b''.join(map(_text, value))
  numbers = _numbers(value)
  if not numbers.ndim:
    return struct.pack('<I', CODES[numbers.dtype]) + numbers.tobytes()
  [length] = numbers.shape
  return struct.pack('<IIQ', ARRAY, CODES[numbers.dtype], length) + numbers.tobytes()


def _numbers(value: Any) -> np.ndarray:
  if isinstance(value, np.ndarray | np.generic):
    return np.asarray(value)
  [kind] = {type(each) for each in value} if isinstance(value, list) else {type(value)}
  return np.array(value, INFERRED[kind])
