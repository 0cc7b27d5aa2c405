"""Arrays stored beside tokens, with a row for each token, pair or label, and a sha256 of each.

    train.classes.npy   u16[tokens]         classes.json   a sha256 for each split
"""

import hashlib
from pathlib import Path

import numpy as np

from model.errors import DataError
from train.artifact import read_json
from train.data.document import Split


def write_column(folder: Path, split: Split, name: str, values: np.ndarray) -> str:
  """Writes `<split>.<name>.npy` and gives its sha256, which belongs into a JSON file of one for each split."""
  np.save(folder / f'{split}.{name}.npy', values)
  return sha256(values)


def read_column(folder: Path, split: Split, name: str, marks: str, rows: int) -> tuple[np.ndarray, str]:
  """The array and its sha256, which the file `marks` has. Raises: DataError if it is not what was written."""
  try:
    values, wanted = np.load(folder / f'{split}.{name}.npy'), read_json(folder / marks)[split]
  except (OSError, ValueError, KeyError) as error:
    raise DataError('data.damaged', f'{split}.{name}.npy in {folder}: {error}', 'a file is missing or cannot be read',
                    'delete the folder and launch again to make it anew') from None
  if sha256(values) != wanted or len(values) != rows:
    raise DataError('data.changed', f'{split}.{name}.npy in {folder}', 'it is not what was written',
                    'put the file back, or delete the folder and launch again to make it anew')
  return values, wanted


def sha256(values: np.ndarray) -> str:
  """Of the array's bytes."""
  return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
