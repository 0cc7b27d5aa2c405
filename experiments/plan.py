"""What launching a config would do: what of its lineage is there, is cut off, or must be made, and at what price."""

import math
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table

from train.artifact import Artifact, Store, digest, encode, lineage
from train.lives import Changes, changes

STYLES = {'made': 'green', 'cut off': 'yellow', 'to be made': 'cyan'}


class Item(NamedTuple):
  """One artifact of the plan; `changed` is what is not as it was when it was cut off."""

  thing: Artifact
  state: str           # 'made', 'cut off' or 'to be made'
  detail: str
  changed: Changes


def plan(artifact: Artifact, store: Store) -> list[Item]:
  """The lineage in the order in which it is made, each with its state.

  Raises: StorageError where a folder holds something else.
  """
  return [_item(thing, store) for thing in lineage(artifact)]


def _item(thing: Artifact, store: Store) -> Item:
  folder = store.folder(thing)
  if store.made(thing):
    return Item(thing, 'made', '', {})
  if not (folder / 'run.json').exists():
    return Item(thing, 'to be made', '', {})
  return Item(thing, 'cut off', thing.remains(folder), changes(folder, encode(thing), digest(thing)))


def price(run: Artifact) -> dict[str, str]:
  """What a run will cost, in words, from shapes alone: nothing is computed. Empty for what is no run.

  Raises: ConfigError where its mesh or its batch does not fit the devices.
  """
  from model.count import flops_per_token
  from train.run import Run  # it imports all of training, which a plan of made things has no need of
  if not isinstance(run, Run):
    return {}
  built = run.build()
  tokens = run.batch * run.rows.length * run.steps
  flops = tokens * flops_per_token(run.model, run.rows.length)
  params, state = (_bytes_per_device(tree) for tree in (built.abstract.params, built.abstract))
  shape = ' x '.join(f'{name} {size}' for name, size in built.mesh.shape.items() if size > 1) or 'no split'
  return {
      'parameters': _short(sum(leaf.size for leaf in jax.tree.leaves(built.abstract.params))),
      'tokens': f'{_short(tokens)} in {run.steps:,} steps of {run.batch} x {run.rows.length}',
      'compute': f'{flops:.2e} FLOPs, forward and backward',
      'devices': f'{built.mesh.size} ({shape})',
      'memory per device': f'{_bytes(state)} of state, {_bytes(params)} of gradients; activations come on top',
  }


def _bytes_per_device(tree: Any) -> int:
  """Bytes of the largest shard of every leaf together."""
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _short(number: float) -> str:
  """1234567 as 1.23M."""
  for unit, size in (('T', 1e12), ('B', 1e9), ('M', 1e6), ('k', 1e3)):
    if number >= size:
      return f'{number / size:.3g}{unit}'
  return f'{number:.0f}'


def _bytes(number: int) -> str:
  return f'{number / 2**30:.2f} GiB' if number >= 2**30 else f'{number / 2**20:.1f} MiB'


def show(items: list[Item], store: Store, prices: bool) -> None:
  """Prints the plan; with `prices`, what each run that is not made will cost."""
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
    rows = price(item.thing) if prices and item.state != 'made' else {}
    if rows:
      console.print(_price_table(item.thing.name, rows))


def _price_table(name: str, rows: dict[str, str]) -> Table:
  table = Table(box=None, title=name, title_justify='left', title_style='bold', show_header=False, pad_edge=False)
  for row in rows.items():
    table.add_row(*row)
  return table
