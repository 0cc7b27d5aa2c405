"""KTO (Ethayarajh et al. 2024) of a small model of film reviews, on single reviews labelled good or bad, without pairs.

  python -m experiments.launch --config=experiments/kto/reviews_tiny.py

Two CPU cores, minutes. Its parent, `experiments/sft/reviews_tiny.py`, is trained first if it is not there; it is also the
reference model. Prompts ask for a favourable review, so fresh reviews are good and rotten ones bad. Reviews need no partner, so
all of them are used; `experiments/dpo/reviews_tiny.py` leaves out every second one.

Result (2026-11-27, two shared cores, 10 min of CPU time with scoring): it learns from 10,218 labels, of which 59% are good, in
one epoch. Of 2,572 held-out ones, 55% of them good, 61.9% are on the right side of the reference point; the mean implicit
reward is -0.16 for good ones and -0.52 for bad ones. On the 701 held-out pairs of `experiments/dpo/reviews_tiny.py` it prefers
the fresh review in 72.6%, standard error 1.7; DPO has 70.5%.
"""

from align.kto import KTO
from align.label_rows import LabelRows, ScoredLabels
from align.label_tokens import LabelTokens
from align.labels import Criticised
from experiments.sft.reviews_tiny import REVIEWS
from experiments.sft.reviews_tiny import get_config as reviewer
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import Linear


def get_config() -> Run:
  parent = reviewer()
  labels = LabelTokens(name='reviews-labels', corpus=REVIEWS, vocabulary=parent.rows.vocabulary,
                       labelling=Criticised(asked=('fresh',)), longest=128)
  scored = ScoredLabels(name='reviews-labels-scored', labels=labels, by=parent)
  return Run(
      name='reviews-kto', model=parent.model, restore=parent, rows=LabelRows(scored), objective=KTO(beta=0.1),
      batch=64, parts=4, steps=160, optimizer=Optimizer(AdamW(lr=5e-4, weight_decay=0.0), Linear(warmup=10)),
      watch=Watch(heldout=160, heldout_rows=4096), saving=Saving(every=0))
