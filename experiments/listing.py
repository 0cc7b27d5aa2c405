"""Lists what a folder of runs holds: what each is, how far it came, when it was begun, and in what things of one name differ.

  python -m experiments.listing
  python -m experiments.listing --runs=/tmp/runs --name=sotu-lm

Things of one name that were made with other settings lie beside each other in folders that differ by a digest. Here each is
told apart by its values of the settings in which they differ, those of what it was made from among them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()             # before JAX is imported, which takes a second

from absl import flags
from rich.console import Console
from rich.table import Table

from experiments import command
from model.errors import ConfigError, DataError, UserError
from train.artifact import MADE, decode, read_json
from train.environment import differences
from train.lives import last_life

flags.declare_key_flag('runs')
NAME = flags.DEFINE_string('name', '', 'List things of this name alone.')
MOST = 4                # settings in which things differ are shown; of more it is said how many
LONGEST = 40            # characters of a value
NOWHERE = '-'           # a setting that one of them does not have


class Thing(NamedTuple):
  """What lies in a folder; `config` is its run.json, None where that cannot be read."""

  folder: Path
  kind: str
  name: str
  state: str
  begun: str
  config: dict[str, Any] | None


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when it is shown."""
  command.no_overrides(overrides)
  things = found(Path(command.RUNS.value))
  wanted = [thing for thing in things if NAME.value in ('', thing.name)]
  if not wanted:
    raise ConfigError('config.no-such-name', f'--name={NAME.value}', f'nothing of that name is in {command.RUNS.value}',
                      f'use one of {", ".join(sorted({thing.name for thing in things}))}')
  console = Console()
  console.print(table(wanted))
  if apart := [(thing.folder.name, said) for thing in wanted if (said := words(thing, wanted))]:
    console.print('\nthose of one name differ in')
    for folder, said in apart:
      console.print(f'{folder}: {said}', soft_wrap=True, markup=False, highlight=False)
  return 0


def found(root: Path) -> list[Thing]:
  """All that was begun under the root, by name and then by when. Raises: ConfigError where nothing was."""
  things = [opened(path.parent) for path in root.glob('*/run.json')]
  if not things:
    raise ConfigError('config.no-runs', f'--runs={root}',
                      'nothing was made in it' if root.is_dir() else 'there is no such folder',
                      'name the folder that was given to experiments.launch; without --runs it is runs')
  return sorted(things, key=lambda thing: (thing.name, thing.begun, thing.folder.name))


def opened(folder: Path) -> Thing:
  """What a folder holds."""
  begun = str((last_life(folder) or {}).get('at', ''))[:16].replace('T', ' ')
  try:
    config = read_json(folder / 'run.json')
    kind, name = str(config['type']).rpartition('.')[2], str(config['name'])
  except (DataError, KeyError, TypeError):
    return Thing(folder, '?', folder.name.rpartition('-')[0], 'its run.json cannot be read', begun, None)
  return Thing(folder, kind, name, 'made' if (folder / MADE).exists() else remains(folder, config), begun, config)


def remains(folder: Path, config: dict[str, Any]) -> str:
  """How far a thing came that is not made."""
  try:
    return f'cut off {decode(config).remains(folder)}'.rstrip()
  except UserError:
    return 'cut off, by other code'


def table(things: Sequence[Thing]) -> Table:
  """A row a thing."""
  drawn = Table(box=None, pad_edge=False, header_style='bold')
  for head in ('folder', 'what', 'state', 'begun (UTC)'):
    drawn.add_column(head, overflow='fold')
  for thing in things:
    drawn.add_row(thing.folder.name, thing.kind, thing.state, thing.begun)
  return drawn


def words(thing: Thing, things: Sequence[Thing]) -> str:
  """The settings of a thing in which it differs from others of its name: `optimizer.rule.lr=0.005 seed=1`; '' for none."""
  told: dict[str, str] = {}
  for other in things:
    if other is not thing and (other.kind, other.name) == (thing.kind, thing.name) and None not in (other.config, thing.config):
      told |= {path: said(path, value) for path, (value, _) in differences(thing.config, other.config).items()}
  shown = [f'{path}={value}' for path, value in sorted(told.items(), key=lambda each: each[0].count('.'))]
  return ' '.join(shown[:MOST]) + (f' and {len(shown) - MOST} more' if len(shown) > MOST else '')


def said(path: str, value: Any) -> str:
  """A value of a run.json for a person: classes by their names, what is large by its beginning."""
  text = NOWHERE if value is None else str(value).rpartition('.')[2] if path.endswith('.type') else str(value)
  return text if len(text) <= LONGEST else f'{text[:LONGEST]}...'


if __name__ == '__main__':
  command.run(main)
