"""How the processes of a job agree with the first one. All of them must call these functions together."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from model.errors import PeerError
from train.saving.integrity import Damaged

FINE, DAMAGED, REFUSED = 0, 1, 2
GONE = re.compile(r'gloo|nccl|connection (closed|reset|refused)|socket closed|coordination service|heartbeat', re.IGNORECASE)


@contextmanager
def together() -> Iterator[None]:
  """Turns what a collective in the block raises where another process of the job died into a PeerError."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1 or not GONE.search(str(error)):
      raise
    raise PeerError('peer.gone', f'process {jax.process_index()} of {jax.process_count()}',
                    f'another process of this job is gone: {str(error).splitlines()[0]}',
                    'launch all of them again: they go on from the last save') from error


def agree(value: int) -> int:
  """The first process's value, on every process."""
  if jax.process_count() == 1:
    return value
  return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def share(failure: BaseException | None, where: Path, alone: bool = False) -> None:
  """Raises what failed in the first process: there itself, and on the others Damaged, or PeerError for all else.

  A process that is `alone` in this waits for no other.
  """
  mine = FINE if failure is None else DAMAGED if isinstance(failure, Damaged) else REFUSED
  told = mine if alone else agree(mine)
  if failure is not None:
    raise failure
  if told == DAMAGED:
    raise Damaged('its files', 'the first process found that they are not those that were saved')
  if told == REFUSED:
    raise PeerError('peer.refused', str(where), 'the first process of this job could not restore from it',
                    'look at the output of the first process')
