"""From arrays in the host's memory to a sealed step with a name. All processes of a job do it together.

Everything is written into `<step>.saving`, sealed there by the first process, and renamed last. So a step with a plain
name is whole, whenever the job is killed.
"""

import json
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import jax

from model.errors import PeerError, StorageError
from train.saving import arrays, integrity, shelf
from train.saving.digest import MODULUS, digests
from train.saving.leaves import Leaf

PATIENCE = 600.0      # seconds that a process waits for the others


@dataclass(frozen=True)
class Save:
  """One step to be saved: arrays that nothing overwrites meanwhile, what they are, and the host's values as JSON."""

  step: int
  arrays: Mapping[str, jax.Array]
  leaves: Mapping[str, Leaf]
  host: str

  @property
  def bytes(self) -> int:
    return sum(array.nbytes for array in self.arrays.values())


def write(folder: Path, save: Save) -> None:
  """Returns when the step is sealed, has its name, and would survive a power cut.

  Raises: whatever Orbax or the file system raises; PeerError if another process does not do its part.
  """
  draft, final, first = folder / f'{save.step}.saving', folder / str(save.step), jax.process_index() == 0
  _settle(save.arrays)
  hashing: AbstractContextManager[dict[str, integrity.Hash]] = integrity.ahead(draft) if first else nullcontext({})
  with ThreadPoolExecutor(1) as thread, hashing as known:
    parts = thread.submit(digests, save.arrays)
    arrays.write(draft / shelf.ARRAYS, save.arrays)
  if not first:
    _hand_over(draft, parts.result())
    _until(lambda: not draft.exists(), f'the first process to seal step {save.step}')
    return
  (draft / shelf.HOST).write_text(save.host, encoding='utf-8')
  integrity.write(draft, save.step, save.leaves, _whole(draft, parts.result()), known)
  if final.exists():
    shelf.set_aside(final)
  draft.rename(final)
  integrity.sync(folder)


def discard(folder: Path, step: int) -> None:
  """Removes what a failed save left, so that it does not hold the disk.

  Orbax raises at the first file that fails, while others are still being written: they make their folders again.
  """
  draft = folder / f'{step}.saving'
  for _ in range(20):
    shutil.rmtree(draft, ignore_errors=True)
    time.sleep(0.1)
    if not draft.exists():
      return


def room(folder: Path, needed: int, reserve: int) -> None:
  """Passes if `needed` bytes and a fifth more can be written and `reserve` bytes still be free.

  Raises: StorageError `store.full`.
  """
  free = shutil.disk_usage(folder).free
  if free < needed * 1.2 + reserve:
    why = f'a save takes {needed / 1e6:,.0f} MB and {reserve / 1e6:,.0f} MB must stay free; {free / 1e6:,.0f} MB are'
    raise StorageError('store.full', str(folder), why, 'make room, or name a folder on another disk')


def _settle(arrays: Mapping[str, jax.Array]) -> None:
  """Makes JAX list the shards of each array before two threads ask for them.

  JAX 0.10 makes the list when it is first asked for. A thread that asks while another one makes it gets a part of the list,
  or shards twice; so parts of arrays would not be saved, or not digested.
  """
  for array in arrays.values():
    _ = array.addressable_shards


def _hand_over(draft: Path, parts: dict[str, int]) -> None:
  target = _part(draft, jax.process_index())
  target.with_suffix('.tmp').write_text(json.dumps(parts))
  target.with_suffix('.tmp').rename(target)


def _whole(draft: Path, parts: dict[str, int]) -> dict[str, int]:
  """The digests of whole arrays, from this process's parts and those that the others hand over through the folder."""
  total = dict(parts)
  for process in range(1, jax.process_count()):
    path = _part(draft, process)
    _until(path.exists, f'process {process} to write {path}: do the processes share this folder?')
    for name, part in json.loads(path.read_text()).items():
      total[name] = (total[name] + part) % MODULUS
    path.unlink()
  return total


def _part(draft: Path, process: int) -> Path:
  return draft / f'digests-{process}.json'


def _until(done, what: str) -> None:
  end = time.monotonic() + PATIENCE
  while not done():
    if time.monotonic() > end:
      raise PeerError('peer.silent', f'waited {PATIENCE:.0f} s for {what}', 'a process of this job is gone or stuck',
                      'look at the output of the other processes')
    time.sleep(0.02)
