"""Plots a run under a limit: the mean cost beside the limit, and the Lagrange multiplier, over steps.

  python -m experiments.constraint.traces --run=runs/largest-limited-f4a157754d \\
      --beside=runs/largest-unlimited-a9c61a57f0 --to=docs/constraint.png
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from align.constraint import Limit
from align.rollout import Rollouts
from experiments import command
from experiments.load import load_run
from experiments.pictures import EMBER, INK, QUIET, STYLE
from model.errors import ConfigError
from train.eval.collect import read_lines

flags.declare_key_flag('run')
BESIDE = flags.DEFINE_multi_string('beside', [], 'The folder of a run without the limit, in grey; may be given several times.')
TO = flags.DEFINE_string('to', 'constraint.png', 'The picture.')


def trace(folder: Path, name: str) -> tuple[list[int], list[float]]:
  """The steps at which a metric was logged, and its values."""
  logged = [(line['step'], line[name]) for line in read_lines(folder / 'metrics.jsonl') if name in line]
  return [step for step, _ in logged], [value for _, value in logged]


def limit_of(folder: str) -> tuple[Limit, Path]:
  """The first limit of the run in a folder, and the folder. Raises: ConfigError if it has none."""
  run, place = load_run(folder)
  if not isinstance(run.rows, Rollouts) or not run.rows.limits:
    raise ConfigError('traces.no-limit', f'--run={folder}', 'it learnt under no limit', 'name a run whose rollouts have limits')
  return run.rows.limits[0], place


def draw(folders: Sequence[str], to: Path) -> None:
  """Writes the plot: the first folder's run is the one under the limit."""
  (limit, first), *others = map(limit_of, folders)
  with rc_context(STYLE):
    figure = Figure(figsize=(9.0, 3.6), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for _, folder in others:
      left.plot(*trace(folder, f'cost/{limit.name}'), color=QUIET, label='without a limit')
    left.plot(*trace(first, f'cost/{limit.name}'), color=EMBER, label='with it')
    left.axhline(limit.most, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f'the limit, {limit.most:g}')
    left.set(title=f'mean cost, {limit.name}', xlabel='step', ylim=(0, None))
    left.legend(labelcolor=INK)
    right.plot(*trace(first, f'multiplier/{limit.name}'), color=EMBER)
    right.set(title='multiplier', xlabel='step', ylim=(0, None))
    figure.savefig(to, dpi=110, facecolor='white')


def main(overrides: command.Overrides) -> int:
  """Exit code 0 when it is drawn."""
  command.no_overrides(overrides)
  draw([command.RUN.value, *BESIDE.value], Path(TO.value))
  return 0


if __name__ == '__main__':
  command.run(main)
