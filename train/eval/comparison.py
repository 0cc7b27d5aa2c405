"""Two evaluations on the same items compared, as an artifact: differences, with intervals by the paired bootstrap.

    Comparison(name='what-tuning-gave', one=Evaluation(...), other=Evaluation(...))

Its folder has `comparison.html` and `comparison.json`; `compared` makes the latter of any two `evaluation.json`:

    schema, one, other      {name, digest, run} of each
    tasks     [{name, items, figures: [{name, one, other, difference, low, high, better, lower}], shown}]
              difference = other - one; low and high are the middle 95% of it over 2,000 resamples of the items, the same for
              both; better: share of resamples in which the other is better, ties half; lower: less is better
    missing   {task: why it is in one of the two alone}
    headline  [{name, one, other, difference}] of two reports: measured once each, without an interval
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rich
from rich.table import Table

from model.errors import ConfigError, DataError
from train.artifact import Artifact, Store, digest, read_json, write_json
from train.eval.comparison_page import render, signed
from train.eval.evaluation import FILE, SCHEMA, Evaluation, Record, columns_of, finite
from train.eval.evaluation_page import written
from train.eval.resampling import paired
from train.eval.show import words
from train.eval.task import BASELINES, FIGURES

SHOWN = 6          # items of a task, those to which the two answer differently


@dataclass(frozen=True, kw_only=True)
class Comparison(Artifact):
  """The comparison of `other` with `one`, on the tasks that both have."""

  one: Evaluation
  other: Evaluation

  def __post_init__(self):
    first, second = ({task.name: digest(task) for task in each.tasks} for each in (self.one, self.other))
    if not first.keys() & second.keys() or any(first[name] != second[name] for name in first.keys() & second.keys()):
      raise ConfigError('compare.tasks', f'{self.one.name}: {", ".join(first)}; {self.other.name}: {", ".join(second)}',
                        'they share no task, or tasks of one name are not the same', 'give both the same tasks')

  def make(self, folder: Path, store: Store) -> None:
    """Compares. Raises: DataError where they are not of the same tasks and items."""
    found = compared(*(read_json(store.find(each) / FILE) for each in (self.one, self.other)))
    write_json(folder / 'comparison.json', found)
    (folder / 'comparison.html').write_text(render(found), encoding='utf-8')
    rich.print(drawn(found))


def compared(one: Record, other: Record) -> Record:
  """What `comparison.json` holds. Raises: DataError where no task is in both, or one has other items or settings."""
  first, second = ({task['name']: task for task in each['tasks']} for each in (one, other))
  shared = [name for name in first if name in second]
  if not shared:
    raise DataError('compare.tasks', f'{_who(one)} and {_who(other)}', f'they have no task in common: {", ".join(first)}; '
                    f'{", ".join(second)}', 'evaluate both on the same tasks')
  for name in shared:
    check_same(first[name], second[name])
  return {
    'schema': SCHEMA, **{side: {'name': each['name'], 'digest': each['digest'], 'run': each['run']['name']}
                         for side, each in (('one', one), ('other', other))},
    'tasks': [{'name': name, 'items': first[name]['items'], 'figures': list(differences(first[name], second[name])),
               'shown': differing(first[name], second[name])} for name in shared],
    'missing': {name: f'in {_who(each)} alone' for each, these, those in ((one, first, second), (other, second, first))
                for name in these if name not in those},
    'headline': []}


def _who(found: Record) -> str:
  return f'{found["name"]} of {found["run"]["name"]}'


def check_same(one: Record, other: Record) -> None:
  """Returns when two records are of one task on the same items. Raises: DataError that says what differs."""
  name, mine, theirs = one['name'], one['ids'], other['ids']
  if mine != theirs:
    alone = [len(set(mine) - set(theirs)), len(set(theirs) - set(mine))]
    first = next((f'; the first: {this!r}, {that!r}' for this, that in zip(mine, theirs) if this != that), '')
    raise DataError('compare.items', f'task {name!r}', f'its items differ: {len(mine):,} and {len(theirs):,}, of which '
                    f'{alone[0]:,} and {alone[1]:,} are in one alone{first}',
                    'evaluate both on the same data, or give the tasks different names')
  if one['digest'] != other['digest']:
    raise DataError('compare.settings', f'task {name!r}', f'its settings differ: {one["kind"]} {one["digest"][:10]}, '
                    f'{other["kind"]} {other["digest"][:10]}', 'evaluate both with the same task')


def differences(one: Record, other: Record) -> Iterator[Record]:
  """The figures that both have, baselines aside."""
  columns, theirs = columns_of(one), columns_of(other)
  known = {figure['name']: figure for figure in other['figures']}
  for figure in one['figures']:
    if figure['name'] in known and figure['name'] in FIGURES.keys() - BASELINES:
      found = paired(FIGURES[figure['name']], columns, theirs, figure['lower'])
      yield {'name': figure['name'], 'one': figure['value'], 'other': known[figure['name']]['value'],
             **{part: finite(x) for part, x in found._asdict().items()}, 'lower': figure['lower']}


def differing(one: Record, other: Record) -> list[dict[str, str]]:
  """Shown items to which the two answer differently."""
  return [{'question': mine['question'], 'one': mine['answer'], 'other': theirs['answer'], 'wanted': mine['wanted']}
          for mine, theirs in zip(one['shown'], other['shown'])
          if mine['question'] == theirs['question'] and mine['answer'] != theirs['answer']][:SHOWN]


def headlines(one: Record, other: Record) -> list[Record]:
  """The numbers that the headlines of two reports have in common, side by side."""
  mine, theirs = one['headline'], other['headline']
  return [{'name': name, 'one': value, 'other': theirs[name],
           'difference': None if value is None or theirs[name] is None else theirs[name] - value}
          for name, value in mine.items() if name in theirs and (value is not None or theirs[name] is not None)]


def drawn(found: Record) -> Table:
  """The comparison for a terminal."""
  table = Table('task', 'figure', title=f'{found["one"]["run"]} and {found["other"]["run"]}', title_justify='left', box=None)
  for head in ('one', 'other', 'difference', '95% interval, paired', 'better'):
    table.add_column(head, justify='right')
  for task in found['tasks']:
    for place, each in enumerate(task['figures']):
      table.add_row('' if place else task['name'], words(each['name']), written(each['one']), written(each['other']),
                    signed(each['difference']), f'{signed(each["low"])} to {signed(each["high"])}',
                    '' if each['better'] is None else f'{each["better"]:.1%}')
  for each in found['headline']:
    table.add_row('report', words(each['name']), written(each['one']), written(each['other']), signed(each['difference']),
                  'no interval', '')
  return table
