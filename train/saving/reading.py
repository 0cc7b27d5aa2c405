"""From a sealed step back to arrays, believing nothing: the tree before a byte, the files, and then every array."""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from model.errors import CheckpointError
from train.files import read_json
from train.saving import arrays, integrity, shelf
from train.saving.digest import MODULUS, digests
from train.saving.integrity import Damaged, Seal
from train.saving.leaves import abstract_bits, compare, describe, from_bits, named

log = logging.getLogger(__name__)


def load(folder: Path, like: Any) -> tuple[Any, dict[str, Any]]:
  """A part of the newest step that is whole, and its host's values; changes nothing in the folder.

  `like` is the part: `{'params': abstract_params}`, or a State whose other fields are None. Leaves that it has not are
  not read. Safe beside a training that goes on.

  Raises: CheckpointError if no step is whole, or it has no such part.
  """
  look = shelf.look(folder)
  for step, seal in reversed(look.seals.items()):
    path = folder / str(step)
    try:
      compare({name: describe(leaf) for name, leaf in named(like).items()}, seal.leaves, str(path), whole=False)
      integrity.verify(path, seal)
      return read(path, seal, like), read_json(path / shelf.HOST)
    except Damaged as damage:
      if not path.exists():
        return load(folder, like)           # the training that goes on has a newer step and deleted this one
      look.damaged[step] = damage
      log.error('%s is damaged and is passed over: %s', path, damage)
  raise no_step(folder, look)


def read(path: Path, seal: Seal, like: Any) -> Any:
  """The leaves that `like` has, as in a step whose files are verified, in its tree and with its shardings.

  All processes of the job call it together.

  Raises: Damaged where an array is not, to the bit, what was saved; CheckpointError where whole files cannot be read,
  which is no fault of theirs (too little memory, another version of Orbax).
  """
  wanted = {name: leaf for name, leaf in named(like).items() if describe(leaf).stored}
  try:
    found = arrays.read(path / shelf.ARRAYS, {name: abstract_bits(leaf) for name, leaf in wanted.items()})
  except Exception as error:
    why = f'its files are whole, but they cannot be read: {brief(error)}'
    raise CheckpointError('checkpoint.unreadable', str(path), why,
                          'see that there is memory enough, and the packages that it was written with') from error
  _check(found, seal)
  leaves = [from_bits(leaf, found.get(name)) for name, leaf in named(like).items()]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _check(found: dict[str, jax.Array], seal: Seal) -> None:
  """Compares digests; the parts of a digest come from every process, so that all processes come to one opinion."""
  parts = np.array(list(digests(found).values()), np.uint32)
  if jax.process_count() > 1:
    parts = np.asarray(multihost_utils.process_allgather(parts)).sum(axis=0, dtype=np.uint64) % MODULUS
  wrong = [name for name, digest in zip(found, parts) if seal.digests.get(name) != int(digest)]
  if wrong:
    raise Damaged(wrong[0], f'its elements are not those that were saved (and so with {len(wrong) - 1} other arrays)')


def no_step(folder: Path, look: shelf.Shelf) -> CheckpointError:
  """The refusal to go on where steps were and none is whole."""
  why = f'no step in it is whole: {"; ".join(look.lost) or "it is empty"}'
  return CheckpointError('checkpoint.none-whole', str(folder), why,
                         'bring back a copy of a step, or launch into another folder to begin from scratch')


def brief(error: BaseException) -> str:
  """An error of another library in one line of bearable length."""
  text = ' '.join(str(error).split()) or repr(error)
  return text if len(text) <= 300 else f'{text[:300]}...'
