"""A scaling law: held-out loss over compute, for five sizes of the quick start's model at equal tokens per parameter.

  python -m experiments.sweep --config=experiments/sweeps/scaling.py

Two CPU cores, about 10 minutes. Each size is trained on TOKENS_PER_PARAMETER tokens a parameter with the same recipe, and
L = E + (C0 / C)^alpha is fitted to the results. Hoffmann et al. 2022 take 20 tokens a parameter; with the 3.5 million tokens of
these speeches that would be many epochs.

Result (2026-11-27): 4.79, 4.38, 4.03, 3.51, 3.21 nats a token from 92 thousand to 1.07 million parameters, and
L = 2.10 + (6.4e13 / C)^0.186 within 0.5% of all five (docs/scaling.png).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.grid import Trials
from experiments.laws import fit_power_law
from experiments.quickstart.pretrain import VOCABULARY
from experiments.quickstart.pretrain import get_config as quickstart
from experiments.trials import Trial
from model.count import flops_per_token, parameters
from model.sizes import llama
from train.artifact import write_json
from train.price import short
from train.run import Run, Saving, Watch

LAYERS = {32: 2, 48: 2, 64: 2, 96: 3, 128: 4}      # by width; head size 32, or 16 for widths that are no multiple of 32
TOKENS_PER_PARAMETER = 5


def get_config() -> Run:
  return replace(quickstart(), name='scaling', watch=Watch(heldout_rows=256), saving=Saving(every=0, keep=1))


def sweep() -> Trials:
  base = get_config()
  sizes = [llama(VOCABULARY.size, width, layers, width // 16 if width % 32 else width // 32)
           for width, layers in LAYERS.items()]
  return [{'name': f'scaling-{size.width}', 'model': size,
           'steps': TOKENS_PER_PARAMETER * parameters(size) // (base.batch * base.rows.length)} for size in sizes]


def draw(trials: Sequence[Trial], folder: Path) -> None:
  """Plots the results and the fitted law; writes the law to law.json."""
  from experiments.pictures import scaling  # matplotlib
  done = [(compute(trial.thing), trial.metrics['heldout_loss'], f'{short(parameters(trial.thing.model))} parameters')
          for trial in trials if trial.metrics and isinstance(trial.thing, Run)]
  flops, losses, names = zip(*done)
  law = fit_power_law(flops, losses)
  write_json(folder / 'law.json', law._asdict())
  scaling(folder, flops, losses, names, law)
  print(f'L = {law.floor:.3g} + ({law.unit:.3g} / C)^{law.exponent:.3g}, within {law.spread:.1%}')


def compute(run: Run) -> float:
  """FLOPs of the training, forward and backward."""
  return run.batch * run.rows.length * run.steps * flops_per_token(run.model, run.rows.length)
