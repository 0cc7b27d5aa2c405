"""Things that can be made and found again: a corpus, a tokenizer, a run, a report. Each is a frozen value.

The whole lineage of a thing, from raw text on, is one value, because a parent is a field. A thing is kept in
`<root>/<name>-<digest>/`, where the digest is a sha256 over the canonical JSON of all that changes what comes out;
fields made with `how(...)` say only how it is computed (mesh, parts, kernels, how often to print) and stay out of it.

    run.json      the thing, from which it can be launched again         made.json     written last: the folder is whole
    lives.jsonl   a line per start: code, packages, what was changed     crash.json    the last life ended in a bug
"""

import dataclasses
import errno
import hashlib
import itertools
import json
import logging
import re
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from model.errors import ConfigError, DataError, StorageError, UserError
from train.canonical import decode, encode, how
from train.files import append_json, read_json, write_json
from train.lives import begin, crashed
from train.lock import Lock

__all__ = ['Artifact', 'Store', 'append_json', 'decode', 'digest', 'encode', 'how', 'lineage', 'parents', 'read_json',
           'write_json']

log = logging.getLogger(__name__)

MADE = 'made.json'
TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,127}')


@dataclass(frozen=True, kw_only=True)
class Artifact:
  """What can be made in a folder of its own, from its fields and its parents alone."""

  name: str = how()

  together: ClassVar[bool] = False      # made by all processes of a job at once; else by the first, while others wait

  @abstractmethod
  def make(self, folder: Path, store: 'Store') -> None:
    """Makes it in `folder`, which exists and may hold what an attempt that was cut off left behind. Its parents are made."""

  def remains(self, folder: Path) -> str:
    """How far an attempt that was cut off came, in a few words: `at step 120 of 300`."""
    return ''

  def outdated(self, folder: Path) -> str:
    """Which of the inputs that it was made from have changed since, in a few words; '' if none is known to have."""
    return ''

  def fits(self) -> None:
    """Returns if the devices of this machine suit it, as far as is known beforehand. Raises: ConfigError."""

  def price(self) -> dict[str, str]:
    """What making it will cost, in words, from shapes alone. Raises ConfigError where the devices do not suit it."""
    return {}


def digest(value: Any) -> str:
  """sha256, in hex, of what the value is: the canonical JSON of its identity, in which parents are digests."""
  identity = encode(value, lambda child: {'digest': digest(child)} if isinstance(child, Artifact) else None)
  text = json.dumps(identity, sort_keys=True, separators=(',', ':'), ensure_ascii=False)
  return hashlib.sha256(text.encode()).hexdigest()


def parents(value: Any) -> Iterator[Artifact]:
  """The artifacts that a value is made from: those in its fields, at any depth, but not theirs."""
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    value = tuple(getattr(value, f.name) for f in dataclasses.fields(value))
  for item in value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ():
    if isinstance(item, Artifact):
      yield item
    else:
      yield from parents(item)


def lineage(artifact: Artifact) -> list[Artifact]:
  """The artifact and all that it comes from, parents first, each once."""
  order: dict[str, Artifact] = {}

  def visit(thing: Artifact):
    key = digest(thing)
    if key not in order:
      for parent in parents(thing):
        visit(parent)
      order[key] = thing

  visit(artifact)
  return list(order.values())


@dataclass(frozen=True)
class Store:
  """The folder where things are kept, one folder a thing.

  `others` are roots that are only read: what is made there counts as made. In a job of several processes that share the
  root, `process` is this one's number among `processes`.
  """

  root: Path
  others: tuple[Path, ...] = ()
  process: int = 0
  processes: int = 1

  def place(self, artifact: Artifact, root: Path | None = None) -> Path:
    """Where the artifact is made: always a plain folder right under the root.

    Raises: ConfigError for a name that could lead elsewhere.
    """
    if not isinstance(artifact.name, str) or not NAME.fullmatch(artifact.name) or '..' in artifact.name:
      raise ConfigError('config.bad-name', f'name = {artifact.name!r}', 'it becomes a folder: letters, digits, dots, '
                        'dashes and underscores, 1 to 128, the first a letter or digit', 'choose such a name')
    return Path(root or self.root) / f'{artifact.name}-{digest(artifact)[:10]}'

  def folder(self, artifact: Artifact) -> Path:
    """Where the artifact is, here or under another root; where it would be made, if it is nowhere."""
    places = [self.place(artifact, root) for root in (self.root, *self.others)]
    return next((place for place in places if _whole(place, artifact)), places[0])

  def made(self, artifact: Artifact) -> bool:
    """Whether it is there and whole."""
    return _whole(self.folder(artifact), artifact)

  def find(self, artifact: Artifact) -> Path:
    """The folder of an artifact that is made.

    Raises: DataError if it is not.
    """
    if not self.made(artifact):
      raise DataError('store.not-made', str(self.place(artifact)), f'{artifact.name} is not made', 'launch it first')
    return self.folder(artifact)

  def make(self, artifact: Artifact) -> Path:
    """Makes whatever of the lineage is missing, parents first, and gives the artifact's folder."""
    for thing in lineage(artifact):
      if not self.made(thing):
        self.make_again(thing)
    return self.folder(artifact)

  def make_again(self, thing: Artifact) -> None:
    """Makes one thing under the root, or resumes it, even if another root holds it already. Its parents must exist."""
    folder = self.place(thing)
    with _storage(folder):
      self._make_again(thing, folder)

  def _make_again(self, thing: Artifact, folder: Path) -> None:
    if self.process > 0:
      if thing.together:
        _wait(folder / 'run.json')
        _live(thing, folder, self)
      _wait(folder / MADE)                # also of what is made together, or the next thing's lineage would lack it
    elif thing.together:
      with Lock(folder):                  # given back at once: what is made together takes it for itself
        begin(folder, encode(thing), digest(thing))
      _live(thing, folder, self)
      write_json(folder / MADE, {'digest': digest(thing), 'name': thing.name})
    else:
      with turn(folder):
        if not _whole(folder, thing):     # another launch may have made it meanwhile
          begin(folder, encode(thing), digest(thing))
          _live(thing, folder, self)
          write_json(folder / MADE, {'digest': digest(thing), 'name': thing.name})


def _live(thing: Artifact, folder: Path, store: Store) -> None:
  """Makes the thing; a bug is written down in its folder."""
  try:
    with _storage(folder):
      thing.make(folder, store)
  except UserError:
    raise
  except Exception as error:
    crashed(folder)
    error.add_note(f'written down in {folder / "crash.json"}')
    raise


@contextmanager
def _storage(folder: Path) -> Iterator[None]:
  """Turns a full or read-only disk, wherever the block writes to, into a StorageError."""
  try:
    yield
  except OSError as error:
    if error.errno not in TAKES_NO_MORE:
      raise
    raise StorageError('storage.cannot-write', str(error.filename or folder), error.strerror or str(error),
                       'free some space, or name a folder that takes it with --runs') from error


@contextmanager
def turn(folder: Path) -> Iterator[None]:
  """Locks the folder while the block runs; waits first if another launch is making the same thing."""
  with ExitStack() as stack:
    for attempt in itertools.count():
      try:
        stack.enter_context(Lock(folder))
        break
      except StorageError as error:
        if error.id != 'store.locked':
          raise
        if attempt == 0:
          log.warning('waiting for %s: %s', folder, error.why)
        time.sleep(0.5)
    yield


def _whole(folder: Path, thing: Artifact) -> bool:
  """Whether the folder holds all of this thing, and not of another whose digest begins alike."""
  path = folder / MADE
  if not path.exists():
    return False
  mark = read_json(path)
  if not isinstance(mark, dict) or 'digest' not in mark:
    raise DataError('store.bad-mark', str(path), 'it does not say what was made', 'delete it to make the thing again')
  return mark['digest'] == digest(thing)


def _wait(path: Path) -> None:
  """Returns when another process has written the file. Should that process die, jax.distributed ends this one."""
  while not path.exists():
    time.sleep(0.2)
