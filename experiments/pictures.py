"""Plots of sweeps, in matplotlib, written as SVG and PNG."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.laws import PowerLaw
from experiments.trials import Trial, metric, word, words
from model.errors import ConfigError

INK, QUIET, LINE, EMBER = '#2b2320', '#7d716a', '#e6dfda', '#c8501e'
RAMP = ('#f0b37e', '#e07a3f', '#c8501e', '#8f3417', '#552012', '#1f1311')      # pale to dark: small to large
STYLE: dict[Any, Any] = {
    'font.size': 10, 'font.family': 'DejaVu Sans', 'text.color': INK, 'axes.labelcolor': QUIET, 'axes.edgecolor': LINE,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'axes.axisbelow': True, 'grid.color': LINE,
    'xtick.color': LINE, 'ytick.color': LINE, 'xtick.labelcolor': QUIET, 'ytick.labelcolor': QUIET,
    'axes.titlelocation': 'left', 'axes.titlesize': 10.5, 'legend.frameon': False, 'lines.linewidth': 1.8,
    'svg.fonttype': 'none', 'svg.hashsalt': 'sweep',
}


class Line(NamedTuple):
  """A named curve; points whose y is not finite (diverged trials) are marked at the top of the plot."""

  name: str
  x: Sequence[float]
  y: Sequence[float]


@contextmanager
def picture(folder: Path, panels: int = 1, width: float = 6.0) -> Iterator[list[Axes]]:
  """Gives axes, side by side with a shared y axis; saves them as sweep.svg and sweep.png when the block ends."""
  with rc_context(STYLE):
    figure = Figure(figsize=(width * (1 + 0.7 * (panels - 1)), 4.0), layout='constrained')
    FigureCanvasAgg(figure)
    yield list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
    figure.savefig(folder / 'sweep.svg', metadata={'Date': None}, facecolor='white')
    figure.savefig(folder / 'sweep.png', dpi=160, facecolor='white')


def curves(trials: Sequence[Trial], folder: Path, x: str, y: str, by: str = '') -> None:
  """Plots metric `y` over field `x`: a curve for each value of field `by`, or without it of all other fields that change.

  Raises: ConfigError where a trial has no number for x, or none has the metric.
  """
  groups: dict[str, list[tuple[float, float]]] = {}
  for trial in trials:
    value = trial.changes.get(x)
    if not isinstance(value, int | float):
      raise ConfigError('sweep.no-axis', f'--x={x}', f'a trial has {value!r} there, which is no number',
                        f'name one of {", ".join(trial.changes)}')
    others = {path: each for path, each in trial.changes.items() if path != x}
    name = word(others.get(by)) if by else words(others)
    groups.setdefault(name, []).append((value, metric(trial, y)))
  if not any(np.isfinite(point[1]) for points in groups.values() for point in points):
    raise ConfigError('sweep.no-metric', f'--y={y}', 'no trial has it',
                      f'name one of {", ".join(trials[0].metrics or {}) or "the metrics of a run"}')
  with picture(folder) as [axes]:
    rates(axes, [Line(name, *zip(*sorted(points))) for name, points in groups.items()])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if len(groups) > 1:
      beside(axes)


def rates(axes: Axes, lines: Sequence[Line]) -> None:
  """Plots curves over a logarithmic x axis, pale to dark in their order; the lowest point of each is filled."""
  for index, line in enumerate(lines):
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    colour = RAMP[round(index * (len(RAMP) - 1) / max(len(lines) - 1, 1))] if len(lines) > 1 else EMBER
    axes.plot(x, y, 'o-', color=colour, label=line.name, markersize=5, markerfacecolor='white')
    if np.isfinite(y).any():
      axes.plot(x[np.nanargmin(y)], np.nanmin(y), 'o', color=colour, markersize=7)
    gone = x[~np.isfinite(y)]
    axes.plot(gone, np.full(len(gone), 0.98), 'x', color=colour, transform=axes.get_xaxis_transform())
  values = sorted({x for line in lines for x in line.x})
  if values[0] > 0:
    axes.set_xscale('log')
    axes.xaxis.set_minor_formatter(NullFormatter())
    shown = values[::1 + len(values) // 9]
    axes.set_xticks(shown, [f'{x:.3g}' for x in shown])
  axes.margins(y=0.1)


def beside(axes: Axes) -> None:
  """Adds a legend to the right of the axes."""
  axes.legend(labelcolor=INK, loc='upper left', bbox_to_anchor=(1.0, 1.0))


def round_values(low: float, high: float) -> list[float]:
  """At most eight round numbers in the range, for the ticks of an axis; [] for a range that is too large."""
  for step in (0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0):
    values = [float(x) for x in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]
    if len(values) <= 8:
      return values
  return []


def scaling(folder: Path, compute: Sequence[float], loss: Sequence[float], names: Sequence[str], law: PowerLaw) -> None:
  """Plots loss over compute, a named point for each run, with the fitted law and its floor."""
  with picture(folder, width=7.0) as [axes]:
    line = np.geomspace(min(compute) / 2, max(compute) * 4, 200)
    axes.plot(line, law(line), color=EMBER, zorder=1)
    axes.axhline(law.floor, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate('what no compute takes away', (line[0], law.floor), xytext=(0, 5), textcoords='offset points', color=QUIET,
                  fontsize=9)
    axes.plot(compute, loss, 'o', color=INK, markersize=6, zorder=2)
    for x, y, name in zip(compute, loss, names):
      axes.annotate(name, (x, y), xytext=(6, 6), textcoords='offset points', color=QUIET, fontsize=9)
    axes.set_xscale('log')
    axes.set_yscale('log')
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(round_values(*axes.get_ylim()))
    axes.yaxis.set_major_formatter('{x:g}')
    axes.set_xlabel('training compute C, FLOPs')
    axes.set_ylabel('held-out loss L, nats a token')
    digits, power = f'{law.unit:.1e}'.split('e')
    formula = rf'$L = {law.floor:.3g} + ({digits} \times 10^{{{int(power)}}}\,/\,C)^{{{law.exponent:.3g}}}$'
    axes.set_title(f'{formula}   (within {law.spread:.1%})')
