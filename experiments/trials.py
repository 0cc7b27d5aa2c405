"""Trials of a sweep that are done, and how their changes are told."""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.grid import Changes
from train.artifact import Artifact


class Trial(NamedTuple):
  """One trial: what was changed, what came of it, where it lies. `metrics` is None where it diverged."""

  changes: Changes
  thing: Artifact
  folder: Path
  metrics: Mapping[str, float] | None


def changed(trials: Sequence[Trial]) -> list[str]:
  """The fields that the trials set and that look different in a table, those with most values first."""
  values: dict[str, set[str]] = {}
  for trial in trials:
    for path, value in trial.changes.items():
      values.setdefault(path, set()).add(word(value))
  return sorted((path for path in values if len(values[path]) > 1), key=lambda path: -len(values[path]))


def words(changes: Changes) -> str:
  """The changes for a person: `model.width=64 optimizer.rule.lr=0.001`."""
  return ' '.join(f'{path}={word(value)}' for path, value in changes.items())


def word(value: Any) -> str:
  """One value for a person; a class by its name."""
  if is_dataclass(value):
    return type(value).__name__
  return f'{value:g}' if isinstance(value, float) else str(value)


def metric(trial: Trial, name: str) -> float:
  """A trial's metric; nan where it diverged or has none."""
  return float('nan') if trial.metrics is None else trial.metrics.get(name, float('nan'))
