"""DPO (Rafailov et al. 2023) of a small model of film reviews: favourable reviews over unfavourable ones.

  python -m experiments.launch --config=experiments/dpo/reviews_tiny.py

Two CPU cores, minutes. Its parent, `experiments/sft/reviews_tiny.py`, is trained first if it is not there; it is also the
reference model, which scores all pairs once. The pairs are those of `experiments/reward/reviews_tiny.py`.

Result (2026-11-27, two shared cores, 4 min 50 s of CPU time): the loss falls from ln 2 to 0.327 on training pairs, and to 0.581
on 701 held-out ones of 97 films, of which DPO's implicit reward is higher for the fresh review in 70.5%, standard error 1.7.
The parent's log-prob is higher for the fresh review in 51.4%; always choosing the longer one is right in 50.7%. Both sides
become less likely, as usual in DPO: the chosen one by 9 nats, the rejected one by 13.
"""

from align.dpo import DPO
from align.pair_report import Agreement
from align.pair_rows import PairRows, Scored
from experiments.reward.reviews_tiny import pairs
from experiments.sft.reviews_tiny import get_config as reviewer
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def dpo(parent: Run) -> Run:
  """The training run, from `parent`, which is also the reference model."""
  scored = Scored(name='reviews-pairs-scored', pairs=pairs(parent), by=parent)
  return Run(
      name='reviews-dpo', model=parent.model, restore=parent, rows=PairRows(scored), objective=DPO(beta=0.1),
      batch=32, parts=4, steps=160, optimizer=Optimizer(AdamW(lr=5e-4, weight_decay=0.0), Linear(warmup=10)),
      watch=Watch(heldout=0), saving=Saving(every=0))


def get_config() -> Agreement:
  return Agreement(name='reviews-dpo-agreement', run=dpo(reviewer()))
