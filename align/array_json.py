"""Arrays as JSON and back, bit for bit: the rollouts that a source holds are part of its position in a checkpoint."""

import base64
import zlib
from typing import Any

import numpy as np

from model.errors import CheckpointError


def packed(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
  """The arrays as JSON values, compressed; `unpacked` reverses it."""
  return {name: {'dtype': array.dtype.str, 'shape': list(array.shape),
                 'zlib': base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode()}
          for name, array in arrays.items()}


def unpacked(packed: dict[str, Any]) -> dict[str, np.ndarray]:
  """The arrays that `packed` was given. Raises: CheckpointError `rollout.damaged` for anything that it did not write."""
  try:
    return {name: np.frombuffer(zlib.decompress(base64.b64decode(each['zlib'])), np.dtype(each['dtype']))
            .reshape(each['shape']).copy() for name, each in packed.items()}
  except (KeyError, TypeError, ValueError, zlib.error) as error:
    raise CheckpointError('rollout.damaged', 'the rollouts in a checkpoint', f'they cannot be read: {error}',
                          'delete that step, so that the one before is used') from None
