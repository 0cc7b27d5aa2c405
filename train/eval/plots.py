"""Curves as inline SVG: text stays text, and each colour is a variable of the page: one drawing for light and dark."""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# Stand-ins that Matplotlib draws with, and the page's variables that take their place.
INK, QUIET, GRID, EMBER, SEA = '#010203', '#010204', '#010205', '#010206', '#010207'
NAME = 12                               # points from one level's name to the next
VARIABLES = {INK: 'var(--ink)', QUIET: 'var(--quiet)', GRID: 'var(--line)', EMBER: 'var(--ember)', SEA: 'var(--sea)'}
STYLE: Any = {
  'svg.fonttype': 'none', 'font.size': 10, 'font.family': 'DejaVu Sans', 'text.color': INK, 'axes.labelcolor': QUIET,
  'axes.edgecolor': GRID, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.spines.left': False,
  'axes.grid': True, 'axes.grid.axis': 'y', 'axes.axisbelow': True, 'grid.color': GRID, 'grid.linewidth': 0.8,
  'xtick.color': GRID, 'ytick.color': GRID, 'xtick.labelcolor': QUIET, 'ytick.labelcolor': QUIET,
  'figure.facecolor': 'none', 'axes.facecolor': 'none',
  'ytick.major.size': 0, 'xtick.major.size': 3, 'lines.linewidth': 1.8, 'lines.solid_capstyle': 'round',
}


@dataclass(frozen=True)
class Curve:
  """Points (x, y) with a name that is written at its end. `kind`: 'line', 'smooth' (faint points below their moving
  average) or 'dots' (a line through marked points)."""

  name: str
  x: Sequence[float]
  y: Sequence[float]
  colour: str = EMBER
  kind: str = 'line'


@dataclass(frozen=True)
class Level:
  """A horizontal line with its name on it."""

  name: str
  y: float


def plot(curves: Sequence[Curve], *, label: str, levels: Sequence[Level] = (), log: bool = False,
         zero: bool = False, percent: bool = False, size: tuple[float, float] = (5.2, 2.6)) -> str:
  """An `<svg>` element over steps. `label` is read out to those who cannot see it; `zero` starts the y axis there."""
  with rc_context(STYLE):
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.add_subplot()
    for curve in curves:
      _draw(axes, curve)
    for level in levels:
      axes.axhline(level.y, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
    _scale(axes, log, zero, percent)
    _names(axes, levels)
    axes.set_xlabel('step')
    if len(curves) > 1:
      axes.legend(frameon=False, loc='upper right', handlelength=1.4, labelcolor=INK)
    return _svg(figure, label)


def _draw(axes: Axes, curve: Curve) -> None:
  x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
  if curve.kind == 'smooth' and len(x) > 20:
    axes.plot(x, y, color=curve.colour, linewidth=0.8, alpha=0.3)
    y = moving_average(y, max(1, len(y) // 100))
  marker = 'o' if curve.kind == 'dots' or len(x) == 1 else None
  axes.plot(x, y, color=curve.colour, marker=marker, markersize=4, label=curve.name)


def moving_average(y: np.ndarray, width: int) -> np.ndarray:
  """The mean of up to `width` values on each side, f64[N]; values that are no numbers count for nothing."""
  finite = np.isfinite(y)
  sums, counts = (np.concatenate([[0.0], np.cumsum(part)]) for part in (np.where(finite, y, 0.0), finite))
  low = np.maximum(np.arange(len(y)) - width, 0)
  high = np.minimum(np.arange(len(y)) + width + 1, len(y))
  with np.errstate(invalid='ignore'):
    return (sums[high] - sums[low]) / (counts[high] - counts[low])


def _names(axes: Axes, levels: Sequence[Level]) -> None:
  """Each level's name beside its line, or as near to it as the names of others let it."""
  figure = axes.get_figure()
  assert figure is not None
  height = axes.get_window_extent().height / figure.dpi * 72
  ordered = sorted(levels, key=lambda level: level.y)
  places = [height * float(axes.transAxes.inverted().transform(axes.transData.transform((0, level.y)))[1]) for level in ordered]
  for level, place, moved in zip(ordered, places, spread(places, NAME)):
    axes.annotate(level.name, (1, level.y), xycoords=('axes fraction', 'data'), xytext=(5, moved - place), color=QUIET,
                  textcoords='offset points', va='center', fontsize=9.5)


def spread(places: Sequence[float], gap: float) -> list[float]:
  """Places, in rising order, moved as little as can be (in squares) until all are at least a gap apart."""
  blocks: list[tuple[float, int]] = []              # of neighbours that touch: the place of the first, and how many
  for index, place in enumerate(places):
    mean, count = place - index * gap, 1
    while blocks and blocks[-1][0] > mean:
      before, many = blocks.pop()
      mean, count = (before * many + mean * count) / (many + count), many + count
    blocks.append((mean, count))
  flat = [mean for mean, count in blocks for _ in range(count)]
  return [place + index * gap for index, place in enumerate(flat)]


def _scale(axes: Axes, log: bool, zero: bool, percent: bool) -> None:
  axes.margins(x=0.01)
  axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=(1, 2, 5, 10)))
  axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
  if log and axes.dataLim.y1 > 0:
    axes.set_yscale('log')
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
  else:
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
  if zero:
    axes.set_ylim(0, 1.1 * axes.dataLim.y1 or 1)
  axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:.0%}' if percent else short(value)))


def short(value: float) -> str:
  """A number as people write it on an axis: 0.0003, 1.5, 250, 1,200, 12k, 1.5M, 3.2B."""
  for scale, mark in ((1e12, 'T'), (1e9, 'B'), (1e6, 'M'), (1e4, 'k')):
    if abs(value) >= scale:
      return f'{value / min(scale, 1e3 if mark == "k" else scale):.3g}{mark}'
  return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'


def _svg(figure: Figure, label: str) -> str:
  """The figure as an element of an HTML page: no prolog, no style sheet, no names; the page's colours."""
  out = io.StringIO()
  with rc_context({'svg.hashsalt': label}):             # the same drawing gives the same bytes, and ids of its own
    FigureCanvasSVG(figure).print_svg(out, metadata={'Date': None})
  text = out.getvalue()
  for unwanted in (r'.*?(?=<svg)', r'<metadata>.*?</metadata>', r'<style.*?</style>', r'\sxmlns(:\w+)?="[^"]*"',
                   r'(?<=<g) id="[^"]*"', r'<!--.*?-->', r'(?<= )xlink:(?=href)'):
    text = re.sub(unwanted, '', text, flags=re.S, count=unwanted.startswith('.'))
  for stand_in, variable in VARIABLES.items():
    text = text.replace(stand_in, variable)
  box = text[text.index('viewBox="'):].split('"')[1]
  return re.sub(r'^<svg[^>]*>', f'<svg role="img" aria-label="{html.escape(label)}" viewBox="{box}">', text)
