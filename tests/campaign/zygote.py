"""Lives that can be killed, a second apart: `python -m tests.campaign.zygote MODULE`.

It imports everything once, without touching a device, and forks a life for each line `FUNCTION FOLDER` on its standard
input: a function of that module, called with the folder. It answers with the life's process id, then with its exit
status; in between the life prints a line as each phase begins (`> save`) and ends (`< save`), so that it can be killed
inside any of them. Whatever else is printed goes to the standard error.
"""

import functools
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from model.errors import UserError
from train.checkpoint import Checkpoints
from train.ledger import Ledger
from train.saving import arrays, integrity, shelf, writing

PHASES: dict[str, tuple[Any, str]] = {
    'restore': (Checkpoints, 'restore'),      # the last save is verified and read
    'step': (Ledger, 'write'),                # from here to the next phase a step is computed
    'save': (Checkpoints, 'save'),            # the state is copied while the training waits
    'write': (arrays, 'write'),               # Orbax writes in the background
    'seal': (integrity, 'write'),             # files are hashed
    'name': (writing, 'write'),               # ends when the step has its name
    'retire': (shelf, 'retire'),              # older steps are deleted
}


ANSWERS = os.dup(1)


def tell(line: str) -> None:
  os.write(ANSWERS, f'{line}\n'.encode())


def announced(phase: str, call):
  """The same function, which says when it begins and when it ends."""
  @functools.wraps(call)
  def wrapper(*args, **kwargs):
    tell(f'> {phase}')
    try:
      return call(*args, **kwargs)
    finally:
      tell(f'< {phase}')
  return wrapper


def life(function, folder: Path) -> int:
  """The exit code of one life."""
  for phase, (owner, name) in PHASES.items():
    setattr(owner, name, announced(phase, getattr(owner, name)))
  try:
    function(folder)
    return 0
  except UserError as error:
    print(error, file=sys.stderr, flush=True)
    return error.exit_code
  except BaseException:
    traceback.print_exc()
    return 1


def main() -> None:
  os.dup2(2, 1)
  module = importlib.import_module(sys.argv[1])
  for line in sys.stdin:
    name, folder = line.rstrip('\n').split(' ', 1)
    child = os.fork()
    if child == 0:
      os._exit(life(getattr(module, name), Path(folder)))
    tell(f'born {child}')
    _, status = os.waitpid(child, 0)
    tell(f'dead {os.waitstatus_to_exitcode(status)}')


if __name__ == '__main__':
  main()
