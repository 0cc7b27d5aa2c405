"""Stages side by side as one page of HTML: a pure function of `stages.json`."""

from pathlib import Path
from typing import Any, NamedTuple

from train.eval.pages import template
from train.eval.show import Figure, Grid, percent


def render(found: dict[str, Any]) -> str:
  """The page, as HTML."""
  better = [row['name'] for row in found['stages'] if row['wins_low'] > 0.5]
  columns = min(3, max(len(sample['answers']) + bool(sample['person']) for sample in found['samples']))
  return template('stages.html.j2', Path(__file__).parent).render(
    r=found, summary=summary(found), bars=bars(found), grid=grid(found), better=better, columns=columns)


def summary(found: dict[str, Any]) -> str:
  """One sentence: which stage wins most often, and at what KL."""
  best = max(found['stages'], key=lambda row: row['wins'])
  if best['wins_low'] <= 0.5:
    return f'No stage is preferred to {found["against"]} beyond chance.'
  return (f'The answers of {best["name"]} are preferred to those of {found["against"]} on {best["wins"]:.1%} of the questions '
          f'({best["wins_low"]:.0%} to {best["wins_high"]:.0%}), at a distance of {best["kl"]:.1f} nats an answer.')


class Bar(NamedTuple):
  """A stage: its share of wins, and the interval, in percent of the track."""

  name: str
  share: str
  between: str
  width: str
  low: str
  span: str
  better: bool


def bars(found: dict[str, Any]) -> list[Bar]:
  """One bar per stage in the order of the lineage, without the stage that they are compared with."""
  return [Bar(row['name'], f'{row["wins"]:.1%}', f'{row["wins_low"]:.0%} to {row["wins_high"]:.0%}',
              f'{100 * row["wins"]:.1f}', f'{100 * row["wins_low"]:.1f}',
              f'{100 * (row["wins_high"] - row["wins_low"]):.1f}', row['wins_low'] > 0.5)
          for row in found['stages'] if row['name'] != found['against']]


def grid(found: dict[str, Any]) -> Grid:
  """The table of numbers, one row per stage."""
  judges = list(found['stages'][0]['judges'])
  rows = [[row['name'], *(Figure(f'{row["judges"][name]["mean"]:.3f} ± {row["judges"][name]["error"]:.3f}') for name in judges),
           percent(row['wins']), Figure(f'{row["kl"]:.2f}'), Figure(f'{row["answer_tokens"]:.1f}'), percent(row['ended']),
           row['run'], row['digest']] for row in found['stages']]
  return Grid.of(['stage', *judges, f'preferred to {found["against"]}', 'KL', 'tokens', 'ended', 'run', 'digest'], rows)
