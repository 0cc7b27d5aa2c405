"""What is in a folder of checkpoints: verified steps, damaged ones, leftovers of saves that were cut off.

    120/            a verified step: sealed, and every file there with its size
    120.corrupt/    a step that failed; it is kept, so that a person can look at it, and never read again
    120.saving/     a save that was cut off            120.deleting/     a deletion that was cut off

A step gets its plain name by one rename, after it is sealed. So a folder with a plain name and no valid seal is
damaged, or was never a step of ours.
"""

import logging
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from train.saving import integrity
from train.saving.integrity import Damaged, Seal

log = logging.getLogger(__name__)

HOST = 'host.json'
ARRAYS = 'state'
STEP = re.compile(r'0|[1-9][0-9]{0,17}')
ASIDE = re.compile(r'[0-9]+\.corrupt(\.[0-9]+)?')
LEFTOVER = re.compile(r'[0-9]+\.(saving|deleting)(\..*)?')


@dataclass
class Shelf:
  """What a look into the folder found. Contents of files are not read, so `seals` may still fail `integrity.verify`."""

  seals: dict[int, Seal] = field(default_factory=dict)          # verified steps, oldest first
  damaged: dict[int, Damaged] = field(default_factory=dict)
  leftovers: list[Path] = field(default_factory=list)
  aside: list[Path] = field(default_factory=list)
  foreign: list[Path] = field(default_factory=list)             # not ours: left alone

  @property
  def lost(self) -> list[str]:
    """All signs that there was a step here once, in words."""
    return [f'{step} ({damage})' for step, damage in self.damaged.items()] + [
        path.name for path in (*self.aside, *(p for p in self.foreign if STEP.fullmatch(p.name)))]


def look(folder: Path) -> Shelf:
  """What the folder holds; nothing, if it is not there.

  Raises: CheckpointError where a step was written by a newer version of this project.
  """
  shelf = Shelf()
  for path in sorted(folder.iterdir() if folder.is_dir() else (), key=lambda path: (len(path.name), path.name)):
    if LEFTOVER.fullmatch(path.name):
      shelf.leftovers.append(path)
    elif ASIDE.fullmatch(path.name):
      shelf.aside.append(path)
    elif STEP.fullmatch(path.name) and any((path / name).exists() for name in (integrity.SEAL, HOST, ARRAYS)):
      try:
        shelf.seals[int(path.name)] = whole(path)
      except Damaged as damage:
        shelf.damaged[int(path.name)] = damage
    else:
      shelf.foreign.append(path)
  return shelf


def whole(path: Path) -> Seal:
  """The seal of a step whose files are all there with their sizes.

  Raises: Damaged, or CheckpointError where a newer version of this project wrote it.
  """
  seal = integrity.read(path)
  integrity.present(path, seal)
  return seal


def set_aside(path: Path) -> Path:
  """Renames a step so that it is never read again, and gives its new path: `120.corrupt`, or `120.corrupt.2`."""
  target, count = path.with_name(f'{path.name}.corrupt'), 1
  while target.exists():
    count += 1
    target = path.with_name(f'{path.name}.corrupt.{count}')
  path.rename(target)
  integrity.sync(path.parent)
  return target


def remove(path: Path) -> None:
  """Deletes a step or a leftover. A kill in the middle leaves a leftover, never half a step."""
  if STEP.fullmatch(path.name):
    path = path.rename(path.with_name(f'{path.name}.deleting'))
  shutil.rmtree(path)


def clean(shelf: Shelf) -> None:
  """Deletes what cut-off saves and deletions left behind, and says so; reports what is not ours."""
  for path in shelf.leftovers:
    log.warning('%s: removed what was left of a %s that was cut off', path,
                'deletion' if '.deleting' in path.name else 'save')
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  for path in shelf.foreign:
    log.warning('%s: not a checkpoint of ours; ignored', path)


def retire(folder: Path, keep: int) -> None:
  """Deletes all verified steps but the newest `keep`."""
  for step in list(look(folder).seals)[:-keep]:
    remove(folder / str(step))
