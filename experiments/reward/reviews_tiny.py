"""A reward model of film critics: which of two reviews of a film is the favourable one, on films that it never saw.

  python -m experiments.launch --config=experiments/reward/reviews_tiny.py

Two CPU cores, minutes beside its parent, `experiments/sft/reviews_tiny.py`. A pair is a fresh and a rotten review of one
film, no review in two pairs, and what is asked for is a favourable one.

Result (2026-11-27, two cores that others shared, 2 min 50 s of CPU time): 76.2% of 701 held-out pairs of 97 films, standard
error 1.6; the longer review is preferred in 50.7%. Words and pairs of words in a logistic regression on such pairs tell 79%. It
learns from 2,523 pairs in two epochs, by the end of which it agrees with 93% of those.

Asked both ways, `SameFilm()`, each couple is two pairs with the roles swapped, and what counts is the question: in the same
number of steps it learns nothing at all of that (49.9% of 1,402).
"""

from align.pair_report import Agreement
from align.pair_rows import PairRows
from align.pair_tokens import PairTokens
from align.review_pairs import SameFilm
from align.reward import RewardModel, Score
from experiments.sft.reviews_tiny import REVIEWS
from experiments.sft.reviews_tiny import get_config as critic
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD


def pairs(parent: Run) -> PairTokens:
  """The pairs in the parent's vocabulary."""
  return PairTokens(name='reviews-pairs', corpus=REVIEWS, vocabulary=parent.rows.vocabulary,
                    pairing=SameFilm(asked=('fresh',)), longest=128)


def reward(parent: Run) -> Run:
  """The run."""
  return Run(
      name='reviews-reward', model=parent.model, restore=parent, edits=(Score(),), rows=PairRows(pairs(parent)),
      objective=RewardModel(margin=0.0, centring=0.01), batch=32, parts=4, steps=160,
      optimizer=Optimizer(Muon(lr=3e-3, others=AdamW(lr=3e-3)), WSD(warmup=10, decay=0.7)),
      watch=Watch(heldout=0), saving=Saving(every=0))


def get_config() -> Agreement:
  return Agreement(name='reviews-reward-agreement', run=reward(critic()))
