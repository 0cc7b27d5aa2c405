"""The lives of a folder: each start of what is made there, with its code and packages, and what changed in between.

A run that is cut off and launched again has two lives. What it computes cannot change between them, since its digest is in the
folder's name; how it is computed can, and then its bits may differ, so it is written down and shown.
"""

import contextlib
import json
import os
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.errors import StorageError
from train.environment import differences, environment
from train.files import append_json, read_json, write_json

Changes = dict[str, tuple[Any, Any]]      # dotted path -> (before, now)


def begin(folder: Path, config: Any, digest: str) -> Changes:
  """Notes in the folder that another life of `config` begins, and returns what changed since the last one.

  Raises: StorageError where the folder cannot be written, or belongs to something else.
  """
  writable(folder)
  changed = changes(folder, config, digest)
  write_json(folder / 'run.json', config)
  append_json(folder / 'lives.jsonl', {'at': now(), 'digest': digest, 'environment': environment(), 'changed': changed})
  with contextlib.suppress(FileNotFoundError):
    os.remove(folder / 'crash.json')
  return changed


def changes(folder: Path, config: Any, digest: str) -> Changes:
  """What is not as it was when the folder was last worked in: `{'environment.packages.jax': ('0.10.2', '0.11.2')}`.

  Raises: StorageError `store.other-run` where the folder holds something else; its message shows what differs.
  """
  last = last_life(folder)
  if last is None:
    return {}
  changed = differences(read_json(folder / 'run.json'), config)
  if last['digest'] != digest:
    raise StorageError('store.other-run', str(folder), f'it holds another run: {tell(changed)}',
                       'launch with another --runs folder, or move this folder away')
  return changed | differences({'environment': last['environment']}, {'environment': environment()})


def last_life(folder: Path) -> dict[str, Any] | None:
  """The newest line of `lives.jsonl`; None where nothing ever began. A line torn by a crash is passed over."""
  with contextlib.suppress(FileNotFoundError):
    for line in reversed((folder / 'lives.jsonl').read_text(encoding='utf-8').splitlines()):
      with contextlib.suppress(json.JSONDecodeError):
        return json.loads(line)
  return None


def tell(changed: Changes) -> str:
  """The changes in words: `mesh.fsdp was 1 and is 4; ...`."""
  return '; '.join(f'{path} was {before!r} and is {after!r}' for path, (before, after) in changed.items())


def writable(folder: Path) -> None:
  """Makes the folder if need be.

  Raises: StorageError where it is a file or cannot be written, before anything is computed.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f'.writable.{os.getpid()}'
    probe.touch()
    probe.unlink(missing_ok=True)       # processes on several machines may have one number, as in containers
  except (FileExistsError, NotADirectoryError) as error:
    raise StorageError('store.not-a-folder', str(folder), f'{error.filename} is a file',
                       'name a folder with --runs') from error
  except OSError as error:
    raise StorageError('store.not-writable', str(folder), str(error.strerror),
                       'name a folder that you may write to with --runs') from error


def crashed(folder: Path) -> None:
  """Writes down the exception that is being handled, a bug, in `crash.json`, if the folder can still be written."""
  with contextlib.suppress(OSError):
    write_json(folder / 'crash.json', {'at': now(), 'environment': environment(),
                                       'traceback': traceback.format_exc().splitlines()})


def now() -> str:
  """The time in UTC, to the second."""
  return datetime.now(UTC).isoformat(timespec='seconds')
