"""safetensors files through the library of that name, which compares every count of a header with the file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from model.errors import DataError
from model.weights.tensor import Slices, Tensor, Tensors

TYPES: dict[str, np.dtype] = {name: np.dtype(kind) for name, kind in {
  'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16, 'I64': np.int64, 'I32': np.int32,
  'I16': np.int16, 'I8': np.int8, 'U8': np.uint8, 'BOOL': np.bool_}.items()}


def open_safetensors(path: Path) -> Tensors:
  """The tensors of a file, by name. Raises: DataError where it is not there, or not what its header says."""
  if not path.is_file():
    raise DataError('weights.missing', str(path), 'there is no such file', 'check the path')
  try:
    file = safe_open(path, framework='numpy')
    return {name: _tensor(path, name, file) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
  except (SafetensorError, OSError) as error:
    raise DataError('weights.damaged', f'{path}: {error}', 'it is no whole safetensors file', 'fetch it again') from None


def _tensor(path: Path, name: str, file: Any) -> Tensor:
  part = file.get_slice(name)
  kind = part.get_dtype()
  if kind not in TYPES:
    raise DataError('weights.type', f'{path}: tensor {name!r:.80} of type {kind}', f'known are {", ".join(TYPES)}',
                    'convert it to one of them')
  shape = tuple(part.get_shape())

  def read(slices: Slices) -> np.ndarray:
    return part[slices] if slices and all(shape) else file.get_tensor(name)[slices]

  return Tensor(name, shape, TYPES[kind], read)


def write_safetensors(path: Path, tensors: Iterable[Tensor]) -> None:
  """Writes a file, all of it in memory; `path` appears when it is whole."""
  part = path.with_name(f'.{path.name}.part')
  save_file({tensor.name: np.asarray(tensor.whole(), order='C') for tensor in tensors}, part, {'format': 'pt'})
  part.rename(path)
