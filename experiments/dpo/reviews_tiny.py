"""Direct preference optimisation (Rafailov et al. 2023) of a small critic: favourable reviews of films over unfavourable ones.

  python -m experiments.launch --config=experiments/dpo/reviews_tiny.py

Two CPU cores, minutes beside its parent, `experiments/sft/reviews_tiny.py`, which is also its reference: it scores all pairs
once, and the policy begins as it. The pairs are those of `experiments/reward/reviews_tiny.py`.

Result (2026-11-27, two cores that others shared, 4 min 50 s of CPU time): the loss begins at ln 2 and comes to 0.327 on the
pairs that it learns from, 0.581 on 701 held-out ones of 97 films, of which it prefers the fresh review, measured by what DPO
makes larger, in 70.5%, standard error 1.7. Its parent finds the fresh review likelier in 51.4%, and the longer one is preferred
in 50.7%. Both sides become less likely, as they do in DPO: the chosen one by 9 nats, the rejected one by 13.
"""

from align.dpo import DPO
from align.pair_report import Agreement
from align.pair_rows import PairRows, Scored
from experiments.reward.reviews_tiny import pairs
from experiments.sft.reviews_tiny import get_config as critic
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def preferred(parent: Run) -> Run:
  """The run."""
  scored = Scored(name='reviews-pairs-scored', pairs=pairs(parent), by=parent)
  return Run(
      name='reviews-dpo', model=parent.model, restore=parent, rows=PairRows(scored), objective=DPO(beta=0.1),
      batch=32, parts=4, steps=160, optimizer=Optimizer(AdamW(lr=5e-4, weight_decay=0.0), Linear(warmup=10)),
      watch=Watch(heldout=0), saving=Saving(every=0))


def get_config() -> Agreement:
  return Agreement(name='reviews-dpo-agreement', run=preferred(critic()))
