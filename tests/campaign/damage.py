"""Things that happen to files: one of nine, to one file of a folder that is drawn half by size and half by number."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path


def _flip(path: Path, rng: random.Random, _: Path) -> None:
  data = bytearray(path.read_bytes())
  if data:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  path.write_bytes(data)


def _truncate(path: Path, rng: random.Random, _: Path) -> None:
  data = path.read_bytes()
  path.write_bytes(data[:rng.randrange(len(data))] if data else data)


def _zero(path: Path, rng: random.Random, _: Path) -> None:
  data = bytearray(path.read_bytes())
  start = rng.randrange(len(data)) if data else 0
  end = min(len(data), start + 4096)
  data[start:end] = bytes(end - start)
  path.write_bytes(data)


def _append(path: Path, rng: random.Random, _: Path) -> None:
  path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 100)))


def _swap(path: Path, _: random.Random, other: Path) -> None:
  a, b = path.read_bytes(), other.read_bytes()
  path.write_bytes(b)
  other.write_bytes(a)


OPERATORS: dict[str, Callable[[Path, random.Random, Path], object]] = {
    'flip': _flip, 'truncate': _truncate, 'zero': _zero, 'append': _append, 'swap': _swap,
    'empty': lambda path, rng, other: path.write_bytes(b''),
    'delete': lambda path, rng, other: path.unlink(),
    'duplicate': lambda path, rng, other: path.write_bytes(other.read_bytes()),
    'folder': lambda path, rng, other: (path.unlink(), path.mkdir()),
}


def damage(folder: Path, rng: random.Random) -> tuple[str, list[Path]]:
  """Does one thing; says what, and which files are not what they were."""
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  path, other = _draw(files, rng), _draw(files, rng)
  before = {file: file.read_bytes() for file in (path, other)}
  name = rng.choice(sorted(OPERATORS))
  OPERATORS[name](path, rng, other)
  changed = [file for file, data in before.items() if not file.is_file() or file.read_bytes() != data]
  return f'{name} {path.relative_to(folder)} ({other.relative_to(folder)})', changed


def _draw(files: list[Path], rng: random.Random) -> Path:
  if rng.random() < 0.5:
    return rng.choice(files)
  return rng.choices(files, [path.stat().st_size + 1 for path in files])[0]


def copy(folder: Path, target: Path) -> Path:
  """A copy to be damaged."""
  shutil.copytree(folder, target)
  return target
