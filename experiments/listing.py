"""Lists the artifacts in a folder of runs: kind, state, start time, and the settings in which those of one name differ.

  python -m experiments.listing
  python -m experiments.listing --runs=/tmp/runs --name=sotu-lm

Artifacts of one name with different settings are in folders that differ by a digest. For these the listing prints the settings
in which they differ, including those of their parents.
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
MOST = 4                # settings shown for each artifact; of further ones only the number
LONGEST = 40            # characters of a value that are shown
NOWHERE = '-'           # shown for a setting that an artifact does not have


class Thing(NamedTuple):
  """The artifact in a folder; `config` is its run.json, None where that cannot be read."""

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
  """All artifacts under the root, finished or not, by name and then start time. Raises: ConfigError where there are none."""
  things = [opened(path.parent) for path in root.glob('*/run.json')]
  if not things:
    raise ConfigError('config.no-runs', f'--runs={root}',
                      'nothing was made in it' if root.is_dir() else 'there is no such folder',
                      'name the folder that was given to experiments.launch; without --runs it is runs')
  return sorted(things, key=lambda thing: (thing.name, thing.begun, thing.folder.name))


def opened(folder: Path) -> Thing:
  """The artifact in a folder."""
  begun = str((last_life(folder) or {}).get('at', ''))[:16].replace('T', ' ')
  try:
    config = read_json(folder / 'run.json')
    kind, name = str(config['type']).rpartition('.')[2], str(config['name'])
  except (DataError, KeyError, TypeError):
    return Thing(folder, '?', folder.name.rpartition('-')[0], 'its run.json cannot be read', begun, None)
  return Thing(folder, kind, name, 'made' if (folder / MADE).exists() else remains(folder, config), begun, config)


def remains(folder: Path, config: dict[str, Any]) -> str:
  """How far an unfinished artifact came, in words."""
  try:
    return f'cut off {decode(config).remains(folder)}'.rstrip()
  except UserError:
    return 'cut off, by other code'


def table(things: Sequence[Thing]) -> Table:
  """A table with a row for each artifact."""
  drawn = Table(box=None, pad_edge=False, header_style='bold')
  for head in ('folder', 'what', 'state', 'begun (UTC)'):
    drawn.add_column(head, overflow='fold')
  for thing in things:
    drawn.add_row(thing.folder.name, thing.kind, thing.state, thing.begun)
  return drawn


def words(thing: Thing, things: Sequence[Thing]) -> str:
  """The settings in which an artifact differs from others of its name: `optimizer.rule.lr=0.005 seed=1`; '' for none."""
  told: dict[str, str] = {}
  for other in things:
    if other is not thing and (other.kind, other.name) == (thing.kind, thing.name) and None not in (other.config, thing.config):
      told |= {path: said(path, value) for path, (value, _) in differences(thing.config, other.config).items()}
  shown = [f'{path}={value}' for path, value in sorted(told.items(), key=lambda each: each[0].count('.'))]
  return ' '.join(shown[:MOST]) + (f' and {len(shown) - MOST} more' if len(shown) > MOST else '')


def said(path: str, value: Any) -> str:
  """A value of a run.json as shown: classes by their names, long values cut to LONGEST characters."""
  text = NOWHERE if value is None else str(value).rpartition('.')[2] if path.endswith('.type') else str(value)
  return text if len(text) <= LONGEST else f'{text[:LONGEST]}...'


if __name__ == '__main__':
  command.run(main)
