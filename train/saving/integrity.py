"""The seal of a checkpoint: `integrity.json` in its folder says what every file and every array of it must be.

Orbax makes a save appear all at once, but does not protect what is in it: a flipped bit in array data comes back as a
wrong weight. The seal has the size and sha256 of each file, and each array's shape, dtype and digest. It has a sha256
of itself too, for it is as likely to be damaged as anything else: whatever is wrong with it, the step is unverified.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from model.errors import CheckpointError, StorageError
from train.files import LARGEST, write_json
from train.saving.leaves import Leaf

FORMAT = 1
SEAL = 'integrity.json'
DATA = re.compile(r'[0-9a-f]{32}')      # what OCDBT names a file of data: at random, when all of it is written

Hash = tuple[int, str]                  # bytes, sha256


class Damaged(Exception):
  """A step that must not be used, because this file or array is wrong."""

  def __init__(self, part: str, why: str):
    super().__init__(f'{part}: {why}')


@dataclass(frozen=True)
class Seal:
  """What a step's folder holds, by its own account."""

  step: int
  files: dict[str, Hash]              # path inside the folder -> bytes, sha256
  leaves: dict[str, Leaf]
  digests: dict[str, int]             # of each leaf that has elements; see train.saving.digest

  @property
  def bytes(self) -> int:
    return sum(size for size, _ in self.files.values())


def write(folder: Path, step: int, leaves: Mapping[str, Leaf], digests: Mapping[str, int],
          known: Mapping[str, Hash] = MappingProxyType({})) -> Seal:
  """Seals the folder as it is now: hashes each file, forces it to the disk, and writes `integrity.json` last.

  `known` are hashes of `ahead`.
  """
  seal = Seal(step, _hashes(folder, sorted(_files(folder)), known, force=True), dict(leaves), dict(digests))
  for path in folder.rglob('*/'):
    sync(path)
  body = {'format': FORMAT, 'step': step, 'files': seal.files,
          'leaves': {name: [leaf.shape, leaf.dtype, seal.digests.get(name)] for name, leaf in leaves.items()}}
  write_json(folder / SEAL, {'sha256': _own(body), 'seal': body})
  sync(folder)
  return seal


@contextmanager
def ahead(folder: Path) -> Iterator[dict[str, Hash]]:
  """Hashes files of data while others are still being written: a dict by name alone, whole when the block ends.

  The folders that they lie in are renamed meanwhile.
  """
  known: dict[str, Hash] = {}
  end = threading.Event()
  with ThreadPoolExecutor(1) as thread:
    follower = thread.submit(_follow, folder, known, end)
    try:
      yield known
    finally:
      end.set()
  follower.result()


def _follow(folder: Path, known: dict[str, Hash], end: threading.Event) -> None:
  while not end.wait(0.01):
    with suppress(FileNotFoundError):
      for path in folder.rglob('d/*'):
        if DATA.fullmatch(path.name) and path.name not in known and not end.is_set():
          known[path.name] = _hash(path)


def read(folder: Path) -> Seal:
  """The seal of a step's folder, if it is what was written there and the folder has the name of its step.

  Raises: Damaged whatever else it finds; CheckpointError if a newer version of this project wrote it; StorageError if
  it may not be read.
  """
  body = _body(folder / SEAL)
  if body.get('format') != FORMAT:
    why = f'it has format {body.get("format")!r}, and this version reads format {FORMAT}'
    raise CheckpointError('checkpoint.newer-format', str(folder), why,
                          'use the version of Athanor that wrote it, or a newer one')
  try:
    leaves = {name: Leaf(tuple(shape), dtype) for name, (shape, dtype, _) in body['leaves'].items()}
    digests = {name: digest for name, (_, _, digest) in body['leaves'].items() if digest is not None}
    seal = Seal(body['step'], {name: (size, sha) for name, (size, sha) in body['files'].items()}, leaves, digests)
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise Damaged(SEAL, f'it is no seal: {error!r}') from error
  if folder.name != str(seal.step):
    raise Damaged(SEAL, f'the folder is named {folder.name} and holds step {seal.step}')
  return seal


def _body(path: Path) -> dict[str, Any]:
  """What the seal says, once it agrees with its own sha256."""
  try:
    if path.stat().st_size > LARGEST:
      raise Damaged(SEAL, f'it is above {LARGEST >> 20} MiB')
    data = json.loads(path.read_bytes())
    body, own = data['seal'], data['sha256']
    if _own(body) != own:
      raise Damaged(SEAL, 'it does not agree with its own sha256')
  except OSError as error:
    raise _unreadable(path, SEAL, error) from error
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise Damaged(SEAL, f'it cannot be read: {error!r}') from error
  if not isinstance(body, dict):
    raise Damaged(SEAL, 'it is no seal')
  return body


def present(folder: Path, seal: Seal) -> None:
  """Passes if every file is there and has its size. Reads no contents.

  Raises: Damaged with the first file that fails.
  """
  for name, (size, _) in seal.files.items():
    try:
      found = (folder / name).stat().st_size
    except OSError as error:
      raise _unreadable(folder / name, name, error) from error
    if found != size:
      raise Damaged(name, f'it has {found:,} bytes and was saved with {size:,}')


def verify(folder: Path, seal: Seal) -> None:
  """Passes if every file holds the very bytes that were sealed.

  Raises: Damaged with the first file that fails.
  """
  present(folder, seal)
  try:
    found = _hashes(folder, list(seal.files))
  except OSError as error:
    raise _unreadable(error.filename, str(error.filename), error) from error
  for name, (size, sha) in seal.files.items():
    if found[name] != (size, sha):
      raise Damaged(name, 'its bytes are not those that were saved (sha256 differs)')


def _unreadable(path: Path | str, part: str, error: OSError) -> Exception:
  """StorageError for a file that may not be read, which says nothing of the step; Damaged for all else."""
  if isinstance(error, PermissionError):
    return StorageError('store.unreadable', str(path), str(error.strerror), 'launch as the user who wrote it')
  if isinstance(error, FileNotFoundError):
    return Damaged(part, 'it is missing')
  return Damaged(part, f'it cannot be read: {error.strerror}')


def sync(path: Path) -> None:
  """Forces a file to the disk, or a folder's list of names, so that a power cut cannot undo a rename in it."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def _own(body: Any) -> str:
  return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(',', ':')).encode()).hexdigest()


def _files(folder: Path) -> Iterator[str]:
  return (path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file() and path.name != SEAL)


def _hashes(folder: Path, names: list[str], known: Mapping[str, Hash] = MappingProxyType({}),
            force: bool = False) -> dict[str, Hash]:
  def one(name: str) -> Hash:
    path = folder / name
    if force:
      sync(path)
    found = known.get(path.name)
    return found if found and found[0] == path.stat().st_size else _hash(path)

  with ThreadPoolExecutor() as threads:
    return dict(zip(names, threads.map(one, names)))


def _hash(path: Path) -> Hash:
  with open(path, 'rb') as file:
    sha = hashlib.file_digest(file, 'sha256').hexdigest()
    return file.tell(), sha
