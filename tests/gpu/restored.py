"""What a checkpoint holds, as the platform that is here restores it: `python -m tests.gpu.restored FOLDER`."""

import hashlib
import json
import sys
from pathlib import Path

import jax

from tests.train.saving.saves import new, values
from train.checkpoint import Checkpoints
from train.types import State


def digests(state: State) -> dict[str, str]:
  """A sha256 of the bytes of each leaf."""
  return {name: hashlib.sha256(value).hexdigest() for name, value in values(state).items()}


if __name__ == '__main__':
  with Checkpoints(Path(sys.argv[1])) as saves:
    restored = saves.restore(new())
  assert restored is not None
  print(json.dumps([jax.default_backend(), digests(restored[0]), restored[1]]))
