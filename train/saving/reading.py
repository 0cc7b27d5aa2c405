"""From a sealed step back to arrays, all verified: the tree before anything is read, the files meanwhile, the arrays after."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from model.errors import CheckpointError, StorageError
from train.files import read_json
from train.saving import arrays, integrity, shelf
from train.saving.digest import MODULUS, digest
from train.saving.integrity import Damaged, Seal
from train.saving.leaves import abstract_bits, compare, describe, from_bits, named
from train.saving.peers import share

log = logging.getLogger(__name__)


def load(folder: Path, like: Any) -> tuple[Any, dict[str, Any]]:
  """A part of the newest step that is whole, and its host's values; changes nothing in the folder.

  `like` is the part: `{'params': abstract_params}`, or a State whose other fields are None. No other leaves are read. Safe
  while a training writes into the folder.

  Raises: CheckpointError if no step is whole, or it has no such part.
  """
  look = shelf.look(folder)
  for step, seal in reversed(look.seals.items()):
    path = folder / str(step)
    try:
      compare({name: describe(leaf) for name, leaf in named(like).items()}, seal.leaves, str(path), whole=False)
      return read(path, seal, like), read_json(path / shelf.HOST)
    except (Damaged, StorageError) as failure:
      if not path.exists():
        return load(folder, like)           # the training that goes on has a newer step and deleted this one
      if isinstance(failure, StorageError):
        raise
      look.damaged[step] = failure
      log.error('%s is damaged and is passed over: %s', path, failure)
  if any(not (folder / str(step)).exists() for step in look.damaged):
    return load(folder, like)               # it was deleted while it was looked at
  raise no_step(folder, look)


def read(path: Path, seal: Seal, like: Any) -> Any:
  """The leaves that `like` has, in its tree and with its shardings, from a step whose seal is valid.

  The files are verified beside the reading, by the first process where several share the arrays; then all of them call
  it together. Arrays on a process's own devices it reads alone.

  Raises: Damaged where a file or an array is not, to the bit, what was saved; CheckpointError where whole files cannot
  be read, which is no fault of theirs (too little memory, another version of Orbax).
  """
  wanted = {name: abstract_bits(leaf) for name, leaf in named(like).items() if describe(leaf).stored}
  alone = all(leaf.sharding.is_fully_addressable for leaf in wanted.values())
  found, parts, error = {}, {}, None
  with ThreadPoolExecutor(1) as thread:
    files = thread.submit(integrity.verify, path, seal) if alone or jax.process_index() == 0 else None
    try:
      for name, array in arrays.read(path / shelf.ARRAYS, wanted):
        found[name], parts[name] = array, digest(array)
    except Exception as trouble:
      error = trouble
  share(files.exception() if files else None, path, alone)
  if error is not None:
    raise _unreadable(path, error) from error
  _check(parts, seal, alone)
  leaves = [from_bits(leaf, found.get(name)) for name, leaf in named(like).items()]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _unreadable(path: Path, error: Exception) -> Exception:
  if not path.exists():
    return Damaged(path.name, 'it was deleted while it was read')
  if isinstance(error, arrays.Absent):
    return Damaged(path.name, f'its files are whole, but not all of it was written into them: {brief(error)}')
  return CheckpointError('checkpoint.unreadable', str(path),
                         f'its files are whole, but they cannot be read: {brief(error)}',
                         'see that there is memory enough, and the packages that it was written with')


def _check(parts: dict[str, int], seal: Seal, alone: bool) -> None:
  """Compares digests; the parts of a digest come from every process, so that all processes come to one opinion."""
  found = np.array(list(parts.values()), np.uint32)
  if not alone:
    found = np.asarray(multihost_utils.process_allgather(found)).sum(axis=0, dtype=np.uint64) % MODULUS
  wrong = [name for name, whole in zip(parts, found) if seal.digests.get(name) != int(whole)]
  if wrong:
    raise Damaged(wrong[0], f'its elements are not those that were saved (and so with {len(wrong) - 1} other arrays)')


def no_step(folder: Path, look: shelf.Shelf) -> CheckpointError:
  """The error for a folder that had steps of which none is whole."""
  why = f'no step in it is whole: {"; ".join(look.lost) or "it is empty"}'
  return CheckpointError('checkpoint.none-whole', str(folder), why,
                         'bring back a copy of a step, or launch into another folder to begin from scratch')


def brief(error: BaseException) -> str:
  """An error of another library in one line of bearable length."""
  text = ' '.join(str(error).split()) or repr(error)
  return text if len(text) <= 300 else f'{text[:300]}...'
