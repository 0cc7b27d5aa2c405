"""Finished trials of a sweep: their results, and their changes as text."""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.grid import Changes
from train.artifact import Artifact


class Trial(NamedTuple):
  """One trial: its changes, its artifact, its folder, and its last metrics, None where it diverged."""

  changes: Changes
  thing: Artifact
  folder: Path
  metrics: Mapping[str, float] | None


def changed(trials: Sequence[Trial]) -> list[str]:
  """The fields that differ between trials (as text), those with most values first."""
  values: dict[str, set[str]] = {}
  for trial in trials:
    for path, value in trial.changes.items():
      values.setdefault(path, set()).add(word(value))
  return sorted((path for path in values if len(values[path]) > 1), key=lambda path: -len(values[path]))


def words(changes: Changes) -> str:
  """The changes as text: `model.width=64 optimizer.rule.lr=0.001`."""
  return ' '.join(f'{path}={word(value)}' for path, value in changes.items())


def word(value: Any) -> str:
  """One value as text; a dataclass by the name of its class."""
  if is_dataclass(value):
    return type(value).__name__
  return f'{value:g}' if isinstance(value, float) else str(value)


def metric(trial: Trial, name: str) -> float:
  """A trial's metric; nan where it diverged or has none."""
  return float('nan') if trial.metrics is None else trial.metrics.get(name, float('nan'))
