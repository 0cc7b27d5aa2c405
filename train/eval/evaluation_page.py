"""An evaluation as one page of HTML: a pure function of `evaluation.json`. Its parts also stand in a run's report."""

from typing import Any, NamedTuple

from markupsafe import Markup

from train.eval.heat import heat
from train.eval.pages import template
from train.eval.show import Figure, Grid, fixed, words

UNBOUNDED = {'loss', 'perplexity', 'bits_per_byte'}     # all other figures lie between 0 and 1
CALLED = {'weighted_f1': 'weighted F1', 'macro_f1': 'macro F1', 'contains': 'contains it', 'token_f1': 'token F1',
          'rouge_1': 'ROUGE-1', 'rouge_2': 'ROUGE-2', 'rouge_l': 'ROUGE-L', 'lead_rouge_l': 'ROUGE-L of the first sentences',
          'loss': 'loss, nats'}


def render(found: dict[str, Any]) -> str:
  """The page."""
  return template('evaluation.html.j2').render(r=found, summary=summary(found), tasks=views(found['tasks']))


def summary(found: dict[str, Any]) -> str:
  """One sentence: the first figure of each task."""
  said = [f'{written(figure["value"])} {called(figure["name"])} on {task["name"]}'
          for task in found['tasks'] for figure in task['figures'][:1]]
  return f'{found["run"]["name"]} has {", ".join(said[:-1])}{" and " if len(said) > 1 else ""}{said[-1]}.' if said else ''


class Line(NamedTuple):
  """A figure; `left` and `width` are its interval and `at` its place, in percent of a track from 0 to 1, if it lies there."""

  name: str
  value: str
  between: str
  counts: bool                # whether it is the task's first
  left: str
  width: str
  at: str


class View(NamedTuple):
  """A task as it is shown; `svg` is ours and safe."""

  name: str
  kind: str
  items: int
  lines: list[Line]
  per_class: Grid | None
  svg: Markup
  shown: list[dict[str, str]]


def views(tasks: list[dict[str, Any]]) -> list[View]:
  """The tasks of a record."""
  return [View(task['name'], task['kind'], task['items'], [_line(each, i == 0) for i, each in enumerate(task['figures'])],
               per_class(task['per_class']), heat(task['confusion'], task['labels']) if task['confusion'] else Markup(''),
               task['shown']) for task in tasks]


def _line(figure: dict[str, Any], counts: bool) -> Line:
  value, low, high = (figure[part] for part in ('value', 'low', 'high'))
  bare = figure['name'] in UNBOUNDED or None in (value, low, high)
  left, width, at = ('' if bare else f'{100 * x:.1f}' for x in (low or 0, (high or 0) - (low or 0), value or 0))
  name = called(figure['name']) + (', less is better' if figure['lower'] else '')
  return Line(name, written(value), between(figure), counts, left, width, at)


def per_class(rows: list[dict[str, Any]]) -> Grid | None:
  """A row a class: precision, recall and F1 with as many decimals, so that a column can be compared at a glance."""
  shown = [[row['label'], *(Figure(fixed(row[name], 3)) for name in ('precision', 'recall', 'f1')), row['support']]
           for row in rows]
  return Grid.of(['class', 'precision', 'recall', 'F1', 'items'], shown) if rows else None


def called(name: str) -> str:
  """A figure's name as people say it."""
  return CALLED.get(name, words(name))


def written(value: float | None) -> str:
  """A figure with three decimals, fewer where it is large; a dash for none."""
  return fixed(value, 3 if value is None or abs(value) < 100 else 1)


def between(figure: dict[str, Any]) -> str:
  """Its interval: `0.412 to 0.468`."""
  return f'{written(figure["low"])} to {written(figure["high"])}'
