"""Compares two evaluations, or two reports: differences of their metrics, with paired-bootstrap intervals for tasks.

  python -m experiments.compare --one=runs/smollm2-tasks-1f3a9c42d0 --other=runs/smollm2-lora-tasks-9d0e2b7a51
  python -m experiments.compare --one=runs/sotu-report-... --other=runs/films-report-... --page=compared.html

Each folder is that of an Evaluation or of a Report. The numbers of a report are single measurements and get no interval; where
both reports have an evaluation, its tasks are compared too. With --page it also writes a page of HTML.
"""

from pathlib import Path
from typing import Any

from experiments import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()             # before JAX is imported, which takes a second

import rich
from absl import flags

from experiments import command
from model.errors import ConfigError
from train.artifact import read_json
from train.eval.comparison import Record, compared, drawn, headlines
from train.eval.comparison_page import render
from train.eval.evaluation import FILE

ONE = flags.DEFINE_string('one', '', 'A folder of an evaluation or a report, such as runs/NAME-1f3a9c42d0.')
OTHER = flags.DEFINE_string('other', '', 'Another, of the same kind.')
PAGE = flags.DEFINE_string('page', None, 'A file for the comparison as a page of HTML.')


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when it is shown."""
  command.no_overrides(overrides)
  found = of_folders(ONE.value, OTHER.value)
  rich.print(drawn(found))
  for name, why in found['missing'].items():
    print(f'not compared: {name}, {why}')
  if PAGE.value:
    Path(PAGE.value).write_text(render(found), encoding='utf-8')
    print(f'the page: {PAGE.value}')
  return 0


def of_folders(one: str, other: str) -> Record:
  """The comparison of two folders.

  Raises: ConfigError where a folder is neither, or only one has an evaluation; DataError where they cannot be compared.
  """
  first, second = opened('one', one), opened('other', other)
  if None not in (first[1], second[1]):
    return compared(first[1], second[1]) | {'headline': headlines(first[0], second[0]) if first[0] and second[0] else []}
  if None in (first[0], second[0]):
    raise ConfigError('config.compare', f'--one={one} --other={other}', 'one is an evaluation, and the other a report that has '
                      'none', 'give two folders of one kind')
  sides = {side: {'name': report['name'], 'digest': report['digest'], 'run': report['name']}
           for side, (report, _) in (('one', first), ('other', second))}
  return {'schema': 1, **sides, 'tasks': [], 'missing': {}, 'headline': headlines(first[0], second[0])}


def opened(flag: str, path: str) -> tuple[Any, Any]:
  """(report, evaluation) of a folder, None for what it does not have. Raises: ConfigError where it has neither."""
  folder = Path(path)
  if path and (folder / FILE).is_file():
    return None, read_json(folder / FILE)
  if path and (folder / 'report.json').is_file() and 'headline' in (report := read_json(folder / 'report.json')):
    beside = folder.resolve().parent / str(report.get('evaluated') or 'none') / FILE
    return report, read_json(beside) if beside.is_file() else None
  raise ConfigError('config.compare', f'--{flag}={path}', f'it has no {FILE}, and no report.json of a run',
                    'give the folder of an evaluation or a report; experiments.launch says it')


if __name__ == '__main__':
  command.run(main)
