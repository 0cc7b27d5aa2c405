"""DPO (Rafailov et al. 2023) of the small chat model, on people's ratings of conversations.

  python -m experiments.launch --config=experiments/dpo/chitchat_tiny.py

Two CPU cores, about three minutes. Its parent, `experiments/sft/chitchat_tiny.py`, is trained first if it is not there; it is
also the reference model, which scores all pairs once.

Result (2026-11-27, two shared cores, 2 min 35 s with scoring): the loss falls from ln 2 to 0.334 on training pairs, and to
0.686 on 886 held-out ones, of which it prefers the chosen side in 55.9%. It overfits, as the reward model of these pairs does,
and the two agree with each other on half of the pairs: no effect on held-out text is shown.
"""

from align.dpo import DPO
from align.pair_report import Agreement
from align.pair_rows import PairRows, Scored
from experiments.reward.chitchat_tiny import pairs
from experiments.sft.chitchat_tiny import get_config as chat
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def dpo(parent: Run) -> Run:
  """The training run, from `parent`, which is also the reference model."""
  scored = Scored(name='chitchat-pairs-scored', pairs=pairs(parent, 256), by=parent)
  return Run(
      name='chitchat-dpo', model=parent.model, restore=parent, rows=PairRows(scored), objective=DPO(beta=0.1),
      batch=16, parts=4, steps=200, optimizer=Optimizer(AdamW(lr=2e-4, weight_decay=0.0), Linear(warmup=20)),
      watch=Watch(heldout=0, metrics=10), saving=Saving(every=0))


def get_config() -> Agreement:
  return Agreement(name='chitchat-dpo-agreement', run=dpo(chat()))
