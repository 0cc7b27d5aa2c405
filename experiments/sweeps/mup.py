"""The best learning rate at several widths, with the standard parametrisation and with muP (Yang et al. 2022).

  python -m experiments.sweep --config=experiments/sweeps/mup.py

Two CPU cores, about 8 minutes. With muP the curves of all widths should have their minimum at the same rate, so that a rate
tuned on a small model transfers to a large one; without it the best rate falls as the width grows.

Result (2026-11-27, one seed): the best rate at widths 32, 64, 128 is 0.020, 0.019, 0.026 with muP, and 0.020, 0.008, 0.007
without (docs/mup.png).
"""

from collections.abc import Sequence
from pathlib import Path

from experiments.grid import Trials, chain, grid, side_by_side, vary
from experiments.laws import best_rate
from experiments.quickstart.pretrain import TOKENS, VOCABULARY
from experiments.trials import Trial, metric
from model.config import MuP
from model.sizes import llama
from train.artifact import write_json
from train.data.rows import Rows
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear

HEAD = 16
WIDTHS = (32, 64, 128)
RATES = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
BASE = llama(VOCABULARY.size, width=WIDTHS[0], layers=2, count=WIDTHS[0] // HEAD, hidden=3 * WIDTHS[0])


def get_config() -> Run:
  return Run(
      name='mup', model=BASE, rows=Rows(TOKENS, length=64), batch=16, steps=200,
      optimizer=Optimizer(AdamW(weight_decay=0.0), Linear(warmup=20)),
      watch=Watch(heldout=200, heldout_rows=256), saving=Saving(every=0, keep=1))


def sweep() -> Trials:
  heads = [width // HEAD for width in WIDTHS]
  widths = side_by_side(vary('model.width', *WIDTHS), vary('model.mlp.hidden', *(3 * width for width in WIDTHS)),
                        vary('model.attention.heads', *heads), vary('model.attention.kv_heads', *heads))
  rates, mup = vary('optimizer.rule.lr', *RATES), vary('model.mup', MuP(base_width=WIDTHS[0], base_head_size=HEAD))
  return chain(grid(vary('model.mup', None), widths, rates), grid(mup, widths[1:], rates))


def draw(trials: Sequence[Trial], folder: Path) -> None:
  """Plots the loss over rates for both parametrisations; writes best.json, the best rate of each width by a parabola."""
  from experiments.pictures import Line, beside, picture, rates  # matplotlib
  best: dict[str, dict[int, float]] = {}
  with picture(folder, panels=2) as panels:
    for axes, mup in zip(panels, (False, True)):
      lines = [Line(f'width {width}', RATES, losses(trials, width, mup and width != WIDTHS[0])) for width in WIDTHS]
      rates(axes, lines)
      axes.set_title('muP' if mup else 'standard parametrisation')
      axes.set_xlabel('learning rate')
      best['mup' if mup else 'standard'] = {width: best_rate(line.x, line.y) for width, line in zip(WIDTHS, lines)}
    panels[0].set_ylabel('held-out loss, nats a token')
    beside(panels[-1])
  write_json(folder / 'best.json', best)
  for name, each in best.items():
    print(f'{name}: best rate ' + ', '.join(f'{rate:.2g} at width {width}' for width, rate in each.items()))


def losses(trials: Sequence[Trial], width: int, mup: bool) -> list[float]:
  """The held-out loss at every rate, nats; nan where a trial diverged. At the base width muP changes nothing."""
  return [metric(trial, 'heldout_loss') for trial in trials
          if trial.changes['model.width'] == width and (trial.changes['model.mup'] is not None) == mup]
