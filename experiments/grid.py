"""Building blocks of sweeps. A sweep is a list of trials; a trial is a dict from the path of a field to its value.

    grid(vary('optimizer.rule.lr', 1e-3, 3e-3), vary('seed', 0, 1))                       every combination: 4 trials
    side_by_side(vary('model.width', 64, 128), vary('model.attention.heads', 2, 4))       the i-th with the i-th: 2
    chain(vary('seed', 0, 1), [{'steps': 10}])                                            one after the other: 3
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from model.errors import ConfigError

Changes = Mapping[str, Any]       # dotted path of a field -> its value; text is read as on the command line
Trials = list[Changes]


def vary(path: str, *values: Any) -> Trials:
  """A trial for each value of one field."""
  return [{path: value} for value in values]


def grid(*sweeps: Iterable[Changes]) -> Trials:
  """The Cartesian product of sweeps; the last one changes fastest. Raises: ConfigError if two of them set one field."""
  return [merged(trials) for trials in itertools.product(*sweeps)]


def side_by_side(*sweeps: Iterable[Changes]) -> Trials:
  """The first trials of all sweeps merged, then the second ones. Raises: ConfigError where lengths or fields clash."""
  lists = [list(sweep) for sweep in sweeps]
  if len({len(each) for each in lists}) > 1:
    raise ConfigError('sweep.unequal', f'sweeps of {", ".join(str(len(each)) for each in lists)} trials',
                      'side by side they must be equally long', 'add or remove values')
  return [merged(trials) for trials in zip(*lists)]


def chain(*sweeps: Iterable[Changes]) -> Trials:
  """All trials of the first sweep, then all of the second, and so on."""
  return list(itertools.chain(*sweeps))


def merged(trials: Iterable[Changes]) -> dict[str, Any]:
  """One trial with the changes of all. Raises: ConfigError if two of them set the same field."""
  result: dict[str, Any] = {}
  for trial in trials:
    twice = result.keys() & trial.keys()
    if twice:
      raise ConfigError('sweep.twice', min(twice), 'two parts of the sweep set it', 'vary it in one place')
    result |= trial
  return result
