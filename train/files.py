"""Small JSON files, written atomically and checked when they are read."""

import json
import os
from pathlib import Path
from typing import Any

from model.errors import DataError, StorageError

LARGEST = 64 * 2**20      # bytes; no file that this project writes whole comes near


def write_json(path: Path, data: Any) -> None:
  """Writes the file whole or not at all: a crash or a power cut leaves the old one or the new one."""
  text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + '\n'
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  with open(temporary, 'w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)


def append_json(path: Path, data: Any) -> None:
  """Adds one line of JSON to the file."""
  with open(path, 'a', encoding='utf-8') as file:
    file.write(json.dumps(data, ensure_ascii=False, allow_nan=False) + '\n')


def read_json(path: Path) -> Any:
  """What the file holds.

  Raises: StorageError where it cannot be read, DataError with line and column where it is no JSON.
  """
  try:
    if path.stat().st_size > LARGEST:
      raise DataError('data.too-large', str(path), f'it is above {LARGEST >> 20} MiB', 'give the file that was meant')
    return json.loads(path.read_text(encoding='utf-8'), parse_constant=_refuse)
  except OSError as error:
    raise StorageError('store.unreadable', str(path), str(error.strerror),
                       'give a file that exists and that you may read') from error
  except json.JSONDecodeError as error:
    raise DataError('data.bad-json', f'{path}:{error.lineno}:{error.colno}', error.msg,
                    'mend the file, or delete the folder that it lies in and launch again') from error
  except (ValueError, RecursionError) as error:
    raise DataError('data.bad-json', str(path), str(error), 'give a file of plain UTF-8 JSON') from error


def _refuse(constant: str):
  raise ValueError(f'{constant} is no number of JSON')
