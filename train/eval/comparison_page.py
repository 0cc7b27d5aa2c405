"""A comparison as one page of HTML: a pure function of `comparison.json`."""

from typing import Any, NamedTuple

from train.eval.evaluation_page import called, written
from train.eval.pages import template
from train.eval.show import NONE, Figure, Grid, number, words


def render(found: dict[str, Any]) -> str:
  """The page."""
  return template('comparison.html.j2').render(
    r=found, summary=summary(found), tasks=[Compared(task['name'], task['items'], [_line(each) for each in task['figures']])
                                            for task in found['tasks']],
    headline=headline(found['headline']), shown=[task for task in found['tasks'] if task['shown']])


class Gain(NamedTuple):
  """A figure of both: `left`, `width` and `at` in percent of a track whose middle is no difference, '' without an interval.

  To the right the other is better. `side` is 'better' or 'worse' where the interval leaves no difference out, else ''.
  """

  name: str
  one: str
  other: str
  value: str
  between: str
  chance: str
  side: str
  left: str
  width: str
  at: str


class Compared(NamedTuple):
  """A task."""

  name: str
  items: int
  lines: list[Gain]


def _line(figure: dict[str, Any]) -> Gain:
  places, side = ('', '', ''), ''
  if None not in (figure['difference'], figure['low'], figure['high']):
    low, high, at = sorted(_gains(figure, 'low', 'high')) + _gains(figure, 'difference')
    side = 'better' if low > 0 else 'worse' if high < 0 else ''
    widest = 1.1 * max(abs(low), abs(high), abs(at)) or 1.0
    places = (f'{50 + 50 * low / widest:.1f}', f'{50 * (high - low) / widest:.1f}', f'{50 + 50 * at / widest:.1f}')
  return Gain(called(figure['name']) + (', less is better' if figure['lower'] else ''), written(figure['one']),
              written(figure['other']), signed(figure['difference']), f'{signed(figure["low"])} to {signed(figure["high"])}',
              NONE if figure['better'] is None else f'{figure["better"]:.0%}', side, *places)


def _gains(figure: dict[str, Any], *parts: str) -> list[float]:
  return [-figure[part] if figure['lower'] else figure[part] for part in parts]


def summary(found: dict[str, Any]) -> str:
  """One sentence: where the other is better beyond chance, and where it is worse."""
  one, other = found['one']['run'], found['other']['run']
  sides: dict[str, list[str]] = {'better': [], 'worse': []}
  for task in found['tasks']:
    for line, figure in [(_line(figure), figure) for figure in task['figures'][:1]]:
      if line.side:
        sides[line.side].append(f'{task["name"]} ({called(figure["name"])} {line.value})')
  said = [f'{side} on {" and ".join(names)}' for side, names in sides.items() if names]
  if not found['tasks']:
    return f'{one} and {other}: two reports, whose numbers were measured once each.'
  return f'{other} is {", and ".join(said)} than {one}.' if said else f'{other} and {one} differ on no task beyond chance.'


def headline(rows: list[dict[str, Any]]) -> Grid | None:
  """The numbers of two reports."""
  parts = ('one', 'other', 'difference')
  shown = [[words(row['name']), *(Figure(NONE if row[part] is None else number(row[part])) for part in parts)] for row in rows]
  return Grid.of(['number', 'one', 'other', 'difference'], shown) if rows else None


def signed(value: float | None) -> str:
  """A difference with its sign."""
  return NONE if value is None else f'{value:+,.{3 if abs(value) < 100 else 1}f}'.replace('-', '\N{MINUS SIGN}')
