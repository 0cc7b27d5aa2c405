"""Lines for people: a table in the terminal after each benchmark, and a Markdown table of the last of each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COLOURS = {'met': 'green', 'missed': 'red', 'noisy': 'yellow', 'unequal': 'red', 'no peers': 'yellow', 'quick': 'cyan'}


def show(line: Mapping[str, Any]) -> None:
  """Prints a line as a table."""
  colour = COLOURS[line['verdict']]
  table = Table(title=f'{line["benchmark"]} [{colour}]{line["verdict"]}[/]   (load {max(line["load"] or [0])}, '
                f'priority {line["priority"]})', title_justify='left')
  for name in ('contestant', 'median', 'minimum', 'CPU', 'spread', 'ours is faster by'):
    table.add_column(name, justify='left' if name == 'contestant' else 'right')
  for name, each in line['figures'].items():
    ratio = line['ratios'].get(name)
    table.add_row(name, quantity(each['median'], line['unit']), quantity(each['minimum'], line['unit']),
                  f'{each["cpu"]:.3g} s', f'{each["spread"]:.0%}', f'{ratio:.2f}x' if ratio else '')
  for target in line['targets']:
    table.add_row(f'  {target["name"]}', f'{target["value"]:.3g}', '', '', target['wanted'],
                  '[green]met[/]' if target['met'] else '[red]missed[/]')
  Console().print(table)
  if 'phases' in line:
    Console().print(phases(line))


def phases(line: Mapping[str, Any]) -> Table:
  """What the steps of a line are made of."""
  table = Table()
  for name in ('contestant', 'phase', 'median', 'share', 'tokens/s'):
    table.add_column(name, justify='left' if name in ('contestant', 'phase') else 'right')
  for name, found in line['phases'].items():
    for phase, each in found.items():
      table.add_row(name, phase, quantity(each['seconds'], 's'), f'{each["share"]:.0%}', f'{each["tokens_per_s"]:,.0f}')
  return table


def quantity(value: float, unit: str) -> str:
  """A number with its unit; seconds below a tenth in milliseconds."""
  if unit.startswith('s') and value < 0.1:
    return f'{value * 1e3:.3g} m{unit}'
  return f'{value:.3g} {unit}'


def latest(path: Path) -> list[Mapping[str, Any]]:
  """The last line of each benchmark in a file, in the order in which they first came."""
  found: dict[str, Mapping[str, Any]] = {}
  for text in path.read_text().splitlines():
    line = json.loads(text)
    found[line['benchmark']] = line
  return list(found.values())


def markdown(lines: list[Mapping[str, Any]]) -> str:
  """A table with a row for each target, and where the numbers come from."""
  rows = ['| benchmark | measured | asked | ours | best peer | verdict |', '|---|---|---|---|---|---|']
  for line in lines:
    mine, best = line['figures'][line['ours']], line['best_peer']
    peer = f'{best} {quantity(line["figures"][best]["median"], line["unit"])}' if best else '-'
    for target in line['targets']:
      verdict = line['verdict'] if line['verdict'] not in ('met', 'missed') else 'met' if target['met'] else 'missed'
      rows.append(f'| {line["benchmark"]} | {target["name"]} {target["value"]:.3g} | {target["wanted"]} | '
                  f'{quantity(mine["median"], line["unit"])} | {peer} | {verdict} |')
  codes = sorted({(line['code']['commit'] or 'no commit')[:8] for line in lines})
  machines = sorted({f'{line["cores"]} cores of {line["processor"]}, jax {line["versions"]["jax"]}' for line in lines})
  return '\n'.join([*rows, '', f'`make bench` at {", ".join(codes)} on {"; ".join(machines)}.'])
