"""Reproduces a training run from its run.json in a fresh folder, and checks that every step's loss is bit-identical.

  python -m experiments.reproduce --run=runs/sotu-lm-1f3a9c42d0
  python -m experiments.reproduce --run=runs/sotu-lm-1f3a9c42d0 --steps=100
  python -m experiments.reproduce --run=runs/sotu-lm-1f3a9c42d0 --from_scratch --to=/tmp/again

Corpus, tokens and parent runs are read from the original folder, which is never written to; --from_scratch makes all of them
again too. Bit-identical results are promised for the same code, packages, kind of processor and mesh; differences of these are
printed.

Exit codes: 0 bit-identical, 1 a step differs (the first one is printed with both values), else as experiments.launch.
"""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()             # before JAX is imported, which takes a second

from absl import flags

from experiments import command
from experiments.load import load_run
from experiments.processes import cache_compilations
from model.errors import ConfigError, DataError, UserError
from train.artifact import Artifact, Store, lineage
from train.ledger import LEDGER, Comparison, compare
from train.lives import tell

flags.declare_key_flag('run')
STEPS = flags.DEFINE_integer('steps', None, 'Run so many steps only. Default: all.', lower_bound=1)
TO = flags.DEFINE_string('to', '', 'The folder to work in. Default: a temporary one, which is kept if bits differ.')
FROM_SCRATCH = flags.DEFINE_bool('from_scratch', False, 'Make again what the run came from, too.')

DIFFERS = 1


def main(overrides: command.Overrides) -> int:
  """Exit code 0 if both trainings are bit-identical, 1 if not."""
  command.no_overrides(overrides)
  run, folder = load_run(command.RUN.value)
  to = fresh(TO.value, folder)
  cache_compilations()
  store = Store(to, others=() if FROM_SCRATCH.value else (folder.parent,))
  again = repeat(run, store, STEPS.value)
  verdict = compare(folder / LEDGER, again / LEDGER)
  print(told(verdict))
  if verdict.equal and not TO.value:
    shutil.rmtree(to)
  else:
    print(f'the second training is in {again}')
  return 0 if verdict.equal else DIFFERS


def fresh(to: str, folder: Path) -> Path:
  """The folder to work in: `to`, or a temporary one where that is ''.

  Raises: ConfigError where the original run is in it.
  """
  if not to:
    return Path(tempfile.mkdtemp(prefix='reproduce-'))
  if Path(to).resolve() == folder.parent:
    raise ConfigError('config.same-folder', f'--to={to}', 'the run lies there', 'name another folder')
  return Path(to)


def repeat(run: Artifact, store: Store, steps: int | None) -> Path:
  """Trains `run` again under the store's root, for at least `steps` steps or (None) to its end: the folder.

  Raises: UserError `run.preempted` where something else interrupted it, such as Ctrl-C.
  """
  for parent in lineage(run)[:-1]:
    store.make(parent)
  folder = store.place(run)
  with asked_to_leave(folder / LEDGER, steps) as asked:
    try:
      store.make_again(run)
    except UserError as error:
      if error.id != 'run.preempted':
        raise
      if not asked.is_set():
        raise type(error)(error.id, error.what, error.why, f'give --to={store.root}, and it goes on from here') from None
  return folder


@contextmanager
def asked_to_leave(ledger: Path, steps: int | None) -> Iterator[threading.Event]:
  """Sends SIGTERM, as a scheduler would, to the training in the block once its ledger has `steps` steps; the event tells so."""
  asked, done = threading.Event(), threading.Event()

  def watch():
    while not done.wait(0.05):
      if ledger.exists() and ledger.read_bytes().count(b'"step"') >= (steps or 0):
        asked.set()
        os.kill(os.getpid(), signal.SIGTERM)
        return

  before = signal.signal(signal.SIGTERM, lambda *_: None)      # in case it arrives just after the last step
  watcher = threading.Thread(target=watch, daemon=True)
  if steps is not None:
    watcher.start()
  try:
    yield asked
  finally:
    done.set()
    if steps is not None:
      watcher.join()
    signal.signal(signal.SIGTERM, before)


def told(verdict: Comparison) -> str:
  """The comparison as a message.

  Raises: DataError where there is nothing to compare.
  """
  if verdict.steps == 0:
    raise DataError('run.nothing-in-common', 'the two ledgers', 'no step is in both', 'let the first run do some steps')
  changed = f'\nbits need not agree, for the circumstances differ: {tell(verdict.changed)}' if verdict.changed else ''
  if verdict.equal:
    return f'equal to the bit: {verdict.steps} steps' + (f' (although {tell(verdict.changed)})' if changed else '')
  return (f'step {verdict.first} is the first of {verdict.steps} that differs: {verdict.told}\n'
          f'the largest difference between two losses of one step is {verdict.largest:.3g}{changed}')


if __name__ == '__main__':
  command.run(main)
