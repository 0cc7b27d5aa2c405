"""Five ways to teach MiniLM a task, at equal steps: subjects of newswire (Reuters-21578 R8) from the first 64 tokens of a text.

  python -m experiments.sweep --config=experiments/tasks/transfer_tiny.py

    head         the model is frozen and its new head alone learns: a linear probe
    adapters     LoRA of rank 8 and the head
    top          the upper three of six layers and the head
    all          everything, at one rate
    by depth     everything, each layer at 0.8 of the rate above it, unfrozen one by one from the top (Howard & Ruder 2018)

Result (2026-11-27, two cores that others shared, 7 min), 60 steps of 16 rows each, on 232 held-out texts:

                 numbers that learn    loss, nats    accuracy    macro F1
    head                      3,080         0.406        87.9        62.1
    adapters                334,856         0.244        94.0        76.5
    top                   5,326,472         0.166        96.6        94.3
    all                  22,568,456         0.157        95.7        91.0
    by depth             22,568,456         0.172        97.0        93.6

An accuracy has a standard error of 1.1 to 2.1 points: the last three are not told apart. Rates are what is usual for each and
were not tuned, with one seed; in so few steps adapters are not done.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax

from experiments.grid import Trials
from experiments.tasks.reuters_r8 import CLASSES, texts, told_apart
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
  run = told_apart('transfer-tiny', texts('reuters-r8', 'reuters-r8'), CLASSES, length=64, steps=STEPS)
  return replace(run, watch=Watch(heldout=STEPS, heldout_rows=200, metrics=10), saving=Saving(every=0))


def sweep() -> Trials:
  head = get_config().edits
  return [trial('head', (*head, Freeze()), 1e-2),
          trial('adapters', (LoRA(8, alpha=16.0), *head), 2e-3),
          trial('top', (*head, FreezeLowest(3)), 5e-4),
          trial('all', head, 3e-4),
          trial('by-depth', head, 5e-4, ByDepth(0.8, unfreeze=5))]


def trial(name: str, edits: tuple[Edit, ...], rate: float, depth: ByDepth | None = None) -> dict[str, object]:
  """One way."""
  rule = AdamW(lr=rate, b2=0.999, weight_decay=0.01)
  return {'name': f'transfer-{name}', 'edits': edits, 'optimizer': Optimizer(rule, Linear(warmup=STEPS // 10), depth=depth)}


def draw(trials: Sequence[Trial], folder: Path) -> None:
  """A line for each way, also written to ways.json: numbers that learn, and what came of it on held-out texts."""
  ways = {}
  for each in trials:
    assert isinstance(each.thing, Run)
    learned = sum(leaf.size for leaf in jax.tree.leaves(each.thing.build().abstract.params))
    ways[each.thing.name] = {'learned': learned, 'loss': metric(each, 'heldout_loss'),
                             'accuracy': metric(each, 'heldout_accuracy'), 'macro_f1': metric(each, 'heldout_macro_f1')}
    print(f'{each.thing.name}: {short(learned)} numbers learn, ' + json.dumps(ways[each.thing.name]))
  write_json(folder / 'ways.json', ways)
