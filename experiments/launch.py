"""Runs an experiment file: makes the artifact that it describes, and first whatever that depends on (data, parent runs).

  python -m experiments.launch --config=experiments/quickstart/pretrain.py
  python -m experiments.launch --config=experiments/quickstart/pretrain.py --config.optimizer.rule.lr=3e-4 --config.seed=1
  python -m experiments.launch --config=experiments/quickstart/pretrain.py --config.optimizer.rule='Muon(lr=0.01)'
  python -m experiments.launch --config=experiments/pretrain/llama_1b.py --dry_run --devices=16
  python -m experiments.launch --config=runs/sotu-lm-1f3a9c42d0/run.json

--config is a Python file with get_config(), or the run.json of a finished or interrupted artifact. Settings are changed by
their path, --config.FIELD.FIELD=VALUE; for a wrong name the error lists the fields. Each artifact is kept in --runs, in a
folder whose name ends in a digest of its config: the same command again finds it there, or resumes it where it was interrupted.

Several processes share one --runs folder:

  python -m experiments.launch --config=FILE --coordinator=10.0.0.1:9876 --processes=2 --process=0     (and 1)

Exit codes: 0 done, 75 stopped by a signal after a save (launch again), 78 configuration, 65 data or checkpoint, 74 storage,
70 numerics, 69 another process is gone or differs, 130 interrupted, 1 a bug.
"""

import sys
from pathlib import Path

from experiments import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()             # before JAX is imported, which takes a second

import jax
from absl import flags

from experiments import command, processes
from experiments.load import load, whole
from experiments.overrides import override
from experiments.plan import plan, show
from model.errors import ConfigError
from train.artifact import Artifact, Store, lineage
from train.lives import writable

flags.declare_key_flag('config')
flags.declare_key_flag('runs')
flags.adopt_module_key_flags(processes)
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print the plan, with parameters, FLOPs, tokens and memory, and stop.')
DEVICES = flags.DEFINE_integer('devices', None, 'With --dry_run: plan for so many devices that need not be here.',
                               lower_bound=1)


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when the config's artifact is made."""
  pretend(DEVICES.value, DRY_RUN.value)
  processes.cache_compilations()
  place = processes.join()
  path = command.CONFIG.value
  config = whole(override(load(path), overrides), path)
  store = Store(Path(command.RUNS.value), **place._asdict())
  if place.processes > 1:
    processes.agree(config)
  items = plan(config, store)
  if place.process == 0:
    show(items, store, prices=DRY_RUN.value)
  if not DRY_RUN.value:
    make(config, store)
  return 0


def pretend(count: int | None, dry: bool) -> None:
  """Makes jax pretend to have `count` CPU devices. Raises: ConfigError unless it is a dry run."""
  if count is None:
    return
  if not dry:
    raise ConfigError('config.devices', f'--devices={count}', 'devices are pretended for a plan only', 'add --dry_run')
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', count)


def make(config: Artifact, store: Store) -> None:
  """Makes what is missing of the lineage, and prints each step. Checks first that all of it can be made on this machine."""
  writable(store.root)
  missing = [thing for thing in lineage(config) if not store.made(thing)]
  for thing in missing:
    thing.fits()
  for thing in missing:
    _say(store, f'making {thing.name} in {store.folder(thing)}')
    store.make(thing)
  _say(store, f'{"made" if missing else "all is there"}: {store.folder(config)}')


def _say(store: Store, text: str) -> None:
  if store.process == 0:
    print(text, file=sys.stderr, flush=True)


if __name__ == '__main__':
  command.run(main, interrupted=command.GOES_ON)
