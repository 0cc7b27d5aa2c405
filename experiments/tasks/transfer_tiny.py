"""Five ways to fine-tune MiniLM, at equal steps: classification of newswire (Reuters-21578 R8) by the first 64 tokens.

  python -m experiments.sweep --config=experiments/tasks/transfer_tiny.py

    head         a linear probe: the model is frozen, only the new head is trained
    adapters     LoRA of rank 8 and the head
    top          the upper three of six layers and the head
    all          full fine-tuning, at one learning rate
    by depth     the same with 0.8 of the rate for each layer down, and gradual unfreezing from the top (Howard & Ruder 2018)

Result (2026-11-27, two shared CPU cores, 7 min), 60 steps of 16 rows each, on 232 held-out texts:

                 trained parameters    loss, nats    accuracy    macro F1
    head                      3,080         0.406        87.9        62.1
    adapters                334,856         0.244        94.0        76.5
    top                   5,326,472         0.166        96.6        94.3
    all                  22,568,456         0.157        95.7        91.0
    by depth             22,568,456         0.172        97.0        93.6

The standard errors of the accuracies are 1.1 to 2.1 points, so the last three do not differ significantly. Learning rates are
the usual ones and were not tuned; one seed; in so few steps the adapters have not converged.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax

from experiments.grid import Trials
from experiments.tasks.reuters_r8 import CLASSES, classifier, texts
from experiments.trials import Trial, metric
from model.adapt import LoRA
from model.edit import Edit
from model.freeze import Freeze, FreezeLowest
from train.artifact import write_json
from train.depth import ByDepth
from train.optimizer import AdamW, Optimizer
from train.price import short
from train.run import Run, Saving, Watch
from train.schedule import Linear

STEPS = 60


def get_config() -> Run:
  run = classifier('transfer-tiny', texts('reuters-r8', 'reuters-r8'), CLASSES, length=64, steps=STEPS)
  return replace(run, watch=Watch(heldout=STEPS, heldout_rows=200, metrics=10), saving=Saving(every=0))


def sweep() -> Trials:
  head = get_config().edits
  return [trial('head', (*head, Freeze()), 1e-2),
          trial('adapters', (LoRA(8, alpha=16.0), *head), 2e-3),
          trial('top', (*head, FreezeLowest(3)), 5e-4),
          trial('all', head, 3e-4),
          trial('by-depth', head, 5e-4, ByDepth(0.8, unfreeze=5))]


def trial(name: str, edits: tuple[Edit, ...], rate: float, depth: ByDepth | None = None) -> dict[str, object]:
  """The trial of one way, at learning rate `rate`."""
  rule = AdamW(lr=rate, b2=0.999, weight_decay=0.01)
  return {'name': f'transfer-{name}', 'edits': edits, 'optimizer': Optimizer(rule, Linear(warmup=STEPS // 10), depth=depth)}


def draw(trials: Sequence[Trial], folder: Path) -> None:
  """Prints a line for each way and writes ways.json: trained parameters, and held-out loss, accuracy and macro F1."""
  ways = {}
  for each in trials:
    assert isinstance(each.thing, Run)
    learned = sum(leaf.size for leaf in jax.tree.leaves(each.thing.build().abstract.params))
    ways[each.thing.name] = {'learned': learned, 'loss': metric(each, 'heldout_loss'),
                             'accuracy': metric(each, 'heldout_accuracy'), 'macro_f1': metric(each, 'heldout_macro_f1')}
    print(f'{each.thing.name}: {short(learned)} numbers learn, ' + json.dumps(ways[each.thing.name]))
  write_json(folder / 'ways.json', ways)
