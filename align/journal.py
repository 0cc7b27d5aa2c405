"""JSON-lines files that are written some lines at a time, and that a killed process goes on with where it stopped.

What a model or a server said is expensive. So each lot of lines is on the disk before the next is asked for: a killed process
loses one lot at most, and the file comes out the same, byte for byte, if line i is a function of i.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from train.data.files import decode, read_lines
from train.data.readers import parse

Record = dict[str, Any]


def write(path: Path, count: int, lot: int, make: Callable[[range], list[Record]]) -> None:
  """Writes lines 0 to `count`, `make` giving those of a range; `path` appears when it is whole."""
  if path.exists():
    return
  part = path.with_name(f'{path.name}.part')
  done = whole_lines(part)
  with part.open('ab') as file, tqdm(total=count, initial=done, desc=path.name, leave=False, disable=None) as bar:
    for begin in range(done, count, lot):
      numbers = range(begin, min(begin + lot, count))
      records = make(numbers)
      assert len(records) == len(numbers), f'{len(records)} records of {numbers}'
      file.write(''.join(map(line, records)).encode())
      file.flush()
      os.fsync(file.fileno())
      bar.update(len(numbers))
  part.rename(path)


def whole_lines(path: Path) -> int:
  """How many whole lines the file has; what a crash left behind the last of them is cut off."""
  if not path.exists():
    return 0
  data = path.read_bytes()
  end = data.rfind(b'\n') + 1
  if end < len(data):
    os.truncate(path, end)
  return data.count(b'\n')


def read(path: Path) -> Iterator[Record]:
  """The records. Raises: DataError that names file:line."""
  for number, text in read_lines(path):
    yield parse(decode(text, f'{path}:{number}'), f'{path}:{number}')


def dump(path: Path, records: Iterable[Record]) -> None:
  """Writes all of them anew."""
  path.write_text(''.join(map(line, records)), encoding='utf-8')


def line(record: Record) -> str:
  """One record, with its newline."""
  return json.dumps(record, ensure_ascii=False, separators=(',', ':'), allow_nan=False) + '\n'
