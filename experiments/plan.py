"""The plan of a launch: which artifacts of a config's lineage are made, interrupted, or to be made, and what they cost."""

from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.overrides import places
from model.errors import ConfigError
from train.artifact import Artifact, Store, digest, encode, lineage
from train.lives import Changes, changes

STYLES = {'made': 'green', 'cut off': 'yellow', 'to be made': 'cyan'}


class Item(NamedTuple):
  """One artifact of the plan. `changed`: settings that differ from those of its interrupted run.

  `outdated` says which source files changed since it was made; '' for none.
  """

  thing: Artifact
  state: str           # 'made', 'cut off' or 'to be made'
  detail: str
  changed: Changes
  outdated: str = ''


def plan(artifact: Artifact, store: Store) -> list[Item]:
  """The lineage in the order in which it is made, each with its state.

  Raises: StorageError where a folder holds something else; ConfigError for a training to be done that has fewer steps than its
  warmup.
  """
  return [_item(thing, store, artifact) for thing in lineage(artifact)]


def _item(thing: Artifact, store: Store, whole: Artifact) -> Item:
  folder = store.folder(thing)
  if store.made(thing):
    return Item(thing, 'made', '', {}, thing.outdated(folder))
  _warms_up(thing, whole)
  if not (folder / 'run.json').exists():
    return Item(thing, 'to be made', '', {})
  return Item(thing, 'cut off', thing.remains(folder), changes(folder, encode(thing), digest(thing)))


def _warms_up(thing: Artifact, whole: Artifact) -> None:
  """Raises: ConfigError for a training with fewer steps than its warmup, with the flags that mend it."""
  from train.run import Run  # all of training, for which --help should not wait
  from train.schedule import warms_up
  if not isinstance(thing, Run):
    return
  try:
    warms_up(thing.optimizer.schedule, thing.steps, thing.name)
  except ConfigError as error:
    flags = ' '.join(f'--{path}.optimizer.schedule.warmup={thing.steps // 10}' for path in places(whole, thing))
    raise ConfigError(error.id, error.what, error.why, f'add {flags} or give more steps') from error


def show(items: list[Item], store: Store, prices: bool) -> None:
  """Prints the plan; with `prices`, also parameters, FLOPs, tokens and memory of each run that is not made yet."""
  console = Console()
  table = Table(box=None, pad_edge=False, header_style='bold')
  for column in ('what', 'name', 'state', 'folder'):
    table.add_column(column, overflow='fold')
  for item in items:
    state = f'[{STYLES[item.state]}]{item.state}[/] {item.detail}'.rstrip()
    table.add_row(type(item.thing).__name__, item.thing.name, state, str(store.folder(item.thing)))
  console.print(table)
  for item in items:
    for path, (before, after) in item.changed.items():
      console.print(f'[yellow]changed since {item.thing.name} was cut off[/]: {path} was {before!r} and is {after!r}',
                    highlight=False)
    if item.outdated:
      console.print(_warning(item, items, store), highlight=False, soft_wrap=True)       # paths stay whole
    if prices and item.state != 'made' and (rows := _price(item.thing)):
      console.print(_price_table(item.thing.name, rows))


def _warning(item: Item, items: list[Item], store: Store) -> str:
  """The warning about an artifact whose source files changed since it was made, with the folders to delete."""
  mine = digest(item.thing)
  heirs = [other for other in items if other is not item and other.state != 'to be made'
           and mine in map(digest, lineage(other.thing))]
  folders = ', '.join(escape(str(store.folder(one.thing))) for one in (item, *heirs))
  return (f'[bold red]outdated: {item.thing.name}[/]: {escape(item.outdated)}\n'
          '  why: what is made is used as it is, so this goes on with the text as it was then\n'
          f'  do:  for the text as it is now, delete what was made from the old ({folders}), or give it a new name; '
          'for the old text, nothing')


def _price(thing: Artifact) -> dict[str, str]:
  try:
    return thing.price()
  except ConfigError as error:
    if error.id != 'mesh.device-count':
      raise
    do = f'{error.do}; --devices=N plans for N that are not here'
    raise ConfigError(error.id, error.what, error.why, do) from error


def _price_table(name: str, rows: dict[str, str]) -> Table:
  table = Table(box=None, title=name, title_justify='left', title_style='bold', show_header=False, pad_edge=False)
  for row in rows.items():
    table.add_row(*row)
  return table
