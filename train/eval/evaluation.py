"""A run evaluated on tasks, as an artifact: metrics with intervals, and the results per item, so that runs can be compared.

    Evaluation(name='smollm2-tasks', run=smollm2, tasks=(Foretelling(...), Answers(...), Summarisation(...)))

Its folder has `evaluation.html`, the page to look at, and `evaluation.json`. Its parts; what is not a number is null:

    schema, name, digest, written     of what, and when            run     {name, digest}
    tasks   [{name, kind, digest, items,
              figures: [{name, value, low, high, lower}],     the first is the one that counts; low and high: the middle 95%
                                                              of 2,000 resamples of the items, or where a share is 0 or 1
                                                              the exact interval; lower: less is better
              labels, confusion, per_class,                   of tasks that tell classes apart; else empty. Truth by row
              shown: [{question, answer, wanted}],
              ids, columns: {name: [...]}}]                   per item, in order: any figure can be had again from these
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich
from rich.table import Table

from model.errors import ConfigError
from train.artifact import Artifact, Store, digest, write_json
from train.eval import classes
from train.eval.evaluation_page import between, render, written
from train.eval.resampling import interval
from train.eval.show import words
from train.eval.task import FIGURES, LOWER, Taken, Task
from train.lives import now
from train.run import Parent
from train.trained import load

SCHEMA = 1
FILE, PAGE = 'evaluation.json', 'evaluation.html'

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evaluation(Artifact):
  """A run, and the tasks that it is measured on. The model is loaded once."""

  run: Parent
  tasks: tuple[Task, ...]

  def __post_init__(self):
    names = [task.name for task in self.tasks]
    if not names or len(set(names)) < len(names):
      raise ConfigError('task.names', f'tasks {", ".join(names) or "()"}', 'there is one at least, and each has a name of '
                        'its own', 'name them so')
    for task in self.tasks:
      task.check(self.run)

  def make(self, folder: Path, store: Store) -> None:
    """Takes every task. Raises: DataError where one has no item, ConfigError where one does not suit the run."""
    found = self.measured(store)
    write_json(folder / FILE, found)
    (folder / PAGE).write_text(render(found), encoding='utf-8')
    rich.print(drawn(found))

  def measured(self, store: Store) -> Record:
    """What `evaluation.json` holds."""
    trained = load(self.run, store)
    return {'schema': SCHEMA, 'name': self.name, 'digest': digest(self), 'written': now(),
            'run': {'name': self.run.name, 'digest': digest(self.run)},
            'tasks': [{'name': task.name, 'kind': type(task).__name__, 'digest': digest(task)} |
                      told(task.figures, task.take(trained, store)) for task in self.tasks]}


def told(figures: tuple[str, ...], taken: Taken) -> Record:
  """A task's part of the record, from its results. Figures whose columns are missing are left out."""
  found = {name: interval(FIGURES[name], taken.columns) for name in figures if set(FIGURES[name].needs) <= taken.columns.keys()}
  return {
    'items': len(taken.ids),
    'figures': [{'name': name} | {part: finite(x) for part, x in each._asdict().items()} | {'lower': name in LOWER}
                for name, each in found.items()],
    **classified(taken), 'shown': list(taken.shown), 'ids': taken.ids,
    'columns': {name: [finite(x) for x in column.tolist()] for name, column in taken.columns.items()},
  }


def classified(taken: Taken) -> Record:
  """The confusion matrix and the metrics per class of a task with labels; empty for other tasks."""
  if not taken.labels:
    return {'labels': [], 'confusion': [], 'per_class': []}
  confusion_CC = classes.confusion(taken.columns['truth'], taken.columns['said'], len(taken.labels))
  return {'labels': list(taken.labels), 'confusion': confusion_CC.tolist(),
          'per_class': classes.per_class(confusion_CC, taken.labels)}


def columns_of(task: Record) -> dict[str, np.ndarray]:
  """The columns of a task's record as arrays, [items] each; null is NaN."""
  return {name: np.array([np.nan if value is None else value for value in values]) for name, values in task['columns'].items()}


def finite(value: float) -> float | None:
  return value if np.isfinite(value) else None


def headline(found: Record) -> dict[str, float | None]:
  """Flat numbers for a report: `{'answers_exact_match': 0.31}`."""
  return {f'{task["name"]}_{figure["name"]}'.replace('-', '_'): figure['value']
          for task in found['tasks'] for figure in task['figures']}


def drawn(found: Record) -> Table:
  """The figures for a terminal."""
  table = Table('task', 'items', 'figure', title=f'{found["name"]}: {found["run"]["name"]}', title_justify='left', box=None)
  table.add_column('value', justify='right')
  table.add_column('95% interval', justify='right')
  for task in found['tasks']:
    for place, figure in enumerate(task['figures']):
      before = (task['name'], f'{task["items"]:,}') if place == 0 else ('', '')
      table.add_row(*before, words(figure['name']), written(figure['value']), between(figure))
  return table
