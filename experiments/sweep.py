"""Runs all trials of an experiment file's sweep, prints a table of the results, and plots them.

  python -m experiments.sweep --config=experiments/sweeps/scaling.py
  python -m experiments.sweep --config=experiments/sweeps/mup.py --config.steps=50 --runs=/tmp/runs
  python -m experiments.sweep --config=FILE --x=optimizer.rule.lr --y=heldout_loss --by=model.width

FILE has get_config(), as for experiments.launch, and sweep(), which returns the trials: dicts from the dotted path of a field
to its value, most easily written with experiments.grid. Finished trials are not run again and interrupted ones resume, so the
same command resumes a sweep. A trial whose numbers stop being finite is listed as diverged, and the sweep continues. If FILE
has draw(trials, folder), that makes the plot.

Written to RUNS/NAME-sweep-DIGEST/: sweep.json, sweep.svg and sweep.png.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()             # before JAX is imported, which takes a second

from absl import flags
from rich.console import Console
from rich.table import Table

from experiments import command
from experiments.grid import Changes, Trials
from experiments.load import call, load_module, whole
from experiments.overrides import override
from experiments.plan import plan
from experiments.processes import cache_compilations
from experiments.trials import Trial, changed, word, words
from model.errors import ConfigError, NumericsError
from train.artifact import Artifact, Store, digest, encode, write_json
from train.eval.collect import read_lines
from train.lives import writable

flags.declare_key_flag('config')
flags.declare_key_flag('runs')
X = flags.DEFINE_string('x', '', 'The field on the x axis. Default: the one with most values.')
Y = flags.DEFINE_string('y', 'heldout_loss', 'The metric on the y axis: a name in the last lines of metrics.jsonl.')
BY = flags.DEFINE_string('by', '', 'A field with a curve for each of its values. Default: all that are not the x axis.')


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when every trial is made or has diverged."""
  module = load_module(command.CONFIG.value)
  base = override(call(module, 'get_config'), overrides)
  store = Store(Path(command.RUNS.value))
  cache_compilations()
  things = configs(base, call(module, 'sweep'), command.CONFIG.value)
  writable(store.root)
  for _, thing in things:
    plan(thing, store)                  # an error in any trial is raised before the first one runs
  trials = run(things, store)
  folder = store.root / f'{base.name}-sweep-{digest([digest(thing) for _, thing in things])[:10]}'
  writable(folder)
  write_json(folder / 'sweep.json', [written(trial) for trial in trials])
  Console().print(table(trials, Y.value))
  draw(module, trials, folder)
  print(f'table and picture: {folder}')
  return 0


def configs(base: Artifact, trials: Trials, path: str) -> list[tuple[Changes, Artifact]]:
  """(changes, config) of every trial, all checked before the first one runs.

  Raises: ConfigError where a trial does not fit the config, two are the same, or there is none.
  """
  found = [(changes, whole(override(base, changes), path)) for changes in trials]
  if len({digest(thing) for _, thing in found}) < max(len(found), 1):
    raise ConfigError('sweep.same-twice', path, 'its sweep is empty, or two of its trials are the same experiment',
                      'let every trial change something that matters')
  return found


def run(things: Sequence[tuple[Changes, Artifact]], store: Store) -> list[Trial]:
  """Runs the trials that are not finished, one after another: all results."""
  trials = []
  for number, (changes, thing) in enumerate(things, 1):
    print(f'trial {number} of {len(things)}: {words(changes)}', flush=True)
    try:
      folder = store.make(thing)
      trials.append(Trial(changes, thing, folder, last_metrics(folder)))
    except NumericsError as error:
      print(error)
      trials.append(Trial(changes, thing, store.place(thing), None))
  return trials


def last_metrics(folder: Path) -> dict[str, float]:
  """The last value of every name in the folder's metrics.jsonl; {} where there is none."""
  return {name: value for line in read_lines(folder / 'metrics.jsonl') for name, value in line.items()}


def written(trial: Trial) -> dict[str, Any]:
  """The trial as a dict for JSON."""
  return {'changes': encode(dict(trial.changes)), 'folder': trial.folder.name, 'digest': digest(trial.thing),
          'metrics': trial.metrics}


def table(trials: Sequence[Trial], metric: str) -> Table:
  """A row for each trial: its changes, the metric, and its folder; the lowest metric is highlighted."""
  result = Table(box=None, pad_edge=False, header_style='bold')
  for name in (*changed(trials), metric, 'folder'):
    result.add_column(name, overflow='fold', justify='left' if name == 'folder' else 'right')
  values = [trial.metrics.get(metric) for trial in trials if trial.metrics]
  best = min((value for value in values if value is not None), default=None)
  for trial in trials:
    value = None if trial.metrics is None else trial.metrics.get(metric)
    told = 'diverged' if trial.metrics is None else '-' if value is None else f'{value:.4f}'
    cells = [word(trial.changes[path]) if path in trial.changes else '' for path in changed(trials)]
    result.add_row(*cells, f'[bold green]{told}[/]' if value == best and value is not None else told, trial.folder.name)
  return result


def draw(module: ModuleType, trials: Sequence[Trial], folder: Path) -> None:
  """Plots by the file's own draw(), or else the metric over one field."""
  own = vars(module).get('draw')
  if own is not None:
    own(trials, folder)
    return
  from experiments.pictures import curves  # matplotlib, which only a finished sweep needs
  numbers = [path for path in changed(trials) if all(isinstance(t.changes.get(path), int | float) for t in trials)]
  curves(trials, folder, X.value or next(iter(numbers), ''), Y.value, BY.value)


if __name__ == '__main__':
  command.run(main, interrupted=command.GOES_ON)
