"""Numbers, text and nested records as people read them: the filters of the report's template."""

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

from markupsafe import Markup, escape

NONE = '\N{EN DASH}'       # stands where there is no value


class Grid(NamedTuple):
  """A table: its name, the names of its columns, rows of plain values, and which columns are numbers (set right)."""

  name: str
  head: list[str]
  rows: list[list[Any]]
  right: list[bool]

  @classmethod
  def of(cls, head: list[str], rows: list[list[Any]], name: str = '') -> 'Grid':
    columns = [[row[i] for row in rows if row[i] is not None] for i in range(len(head))]
    return cls(name, head, rows, [all(map(_numeric, column)) for column in columns])


class Figure(str):
  """A number that is already written out, with its unit: set right like a number."""


def _numeric(value: Any) -> bool:
  return isinstance(value, int | float | Figure) and not isinstance(value, bool)


def show(value: Any) -> str | Markup:
  """A value in a cell: thousands are set apart, fractions have four digits, what is not there is a dash."""
  if value is None:
    return NONE
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, int):
    return f'{value:,}'
  if isinstance(value, float):
    return number(value)
  if isinstance(value, list | tuple):
    return Markup(', ').join(map(show, value)) if value else NONE
  return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def number(value: float) -> str:
  """A fraction with four significant digits: 0.0003, 1.434, 250.1, 12,345."""
  if not math.isfinite(value):
    return 'not finite'
  return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'


def fixed(value: Any, digits: int) -> str:
  """A number with that many decimals; a dash for what is not there."""
  return f'{value:,.{digits}f}' if isinstance(value, int | float) else NONE


def scaled(value: float | None) -> tuple[str, str]:
  """A number of three digits and the unit it is in: ('4.19', 'M')."""
  for size, unit in ((1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e4, 'k')):
    if value is not None and abs(value) >= size:
      return f'{value / (1e3 if unit == "k" else size):.3g}', unit
  return (NONE, '') if value is None else (f'{value:,.0f}' if value >= 100 else f'{value:.3g}', '')


def duration(seconds: float | None) -> str:
  """48 s, 2 min 51 s, 3 h 12 min, 2 d 4 h."""
  if seconds is None:
    return NONE
  whole = round(seconds)
  for size, unit, below, small in ((86400, 'd', 3600, 'h'), (3600, 'h', 60, 'min'), (60, 'min', 1, 's')):
    if whole >= size:
      return f'{whole // size} {unit} {whole % size // below} {small}'
  return f'{seconds:.3g} s'


def milliseconds(seconds: float | None) -> Figure:
  """1.73 ms, 17.3 ms, 1,730.0 ms."""
  return Figure(NONE if seconds is None else f'{seconds * 1e3:,.{2 if seconds < 0.01 else 1}f} ms')


def percent(share: float | None) -> Figure:
  """12.5%."""
  return Figure(NONE if share is None else f'{share:.1%}')


# What a page would hide or obey: controls but tab and newline, soft hyphens, zero widths, directions, lone surrogates.
HIDDEN = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff'
                    '\ud800-\udfff]')


def visible(text: Any) -> Markup:
  """The text, escaped, white space kept, and what cannot be seen written as in Python: `\\x1b`, `\\u202e`."""
  parts, last = [], 0
  text = str(text)
  for match in HIDDEN.finditer(text):
    parts += [escape(text[last:match.start()]), Markup('<span class="ctl">{}</span>').format(_code(match.group()))]
    last = match.end()
  return Markup('').join([*parts, escape(text[last:])])


def _code(character: str) -> str:
  return f'\\x{ord(character):02x}' if ord(character) < 0x100 else f'\\u{ord(character):04x}'


def grids(data: Any, name: str = '') -> Iterator[Grid]:
  """Grids that show all of a JSON value: records side by side are one grid; one is two columns, then its parts."""
  if isinstance(data, list) and data and all(isinstance(item, dict) for item in data):
    head = list(dict.fromkeys(key for item in data for key in item))
    yield Grid.of([words(key) for key in head], [[item.get(key) for key in head] for item in data], name)
  elif isinstance(data, dict) and data and all(isinstance(item, dict) for item in data.values()):
    yield from grids([{'': key} | item for key, item in data.items()], name)
  elif isinstance(data, dict):
    nested = {key: item for key, item in data.items() if _is_table(item)}
    plain = [[words(key), item] for key, item in data.items() if key not in nested]
    if plain:
      yield Grid.of(['', ''], plain, name)
    for key, item in nested.items():
      yield from grids(item, f'{name}, {words(key)}' if name else words(key))
  else:
    yield Grid.of([''], [[data]], name)


def _is_table(value: Any) -> bool:
  return bool(value) and (isinstance(value, dict) or (isinstance(value, list) and isinstance(value[0], dict)))


def words(key: str) -> str:
  """A field's name as words: `bytes_per_token` is `bytes per token`."""
  return unicodedata.normalize('NFC', str(key)).replace('_', ' ')


def settings(tree: Any) -> Grid:
  """The leaves of a config as a grid; the type of a part stands at the part's own path."""
  return Grid.of(['setting', 'value'], list(_leaves(tree, '')))


def _leaves(tree: Any, path: str) -> Iterator[list[Any]]:
  if isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
    tree = dict(enumerate(tree))
  if not isinstance(tree, dict) or not tree:
    yield [path, tree if isinstance(tree, bool | list | None) else str(tree)]
    return
  if 'type' in tree:
    yield [path or 'type', tree['type']]
  for key, item in tree.items():
    if key != 'type':
      yield from _leaves(item, f'{path}.{key}' if path else str(key))
