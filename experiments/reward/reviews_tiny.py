"""A reward model of film reviews: which of two reviews of a film is the favourable one, tested on held-out films.

  python -m experiments.launch --config=experiments/reward/reviews_tiny.py

Two CPU cores, minutes; its parent, `experiments/sft/reviews_tiny.py`, is trained first if it is not there. A pair is a fresh
and a rotten review of one film, asked for a favourable one; no review is in two pairs.

Result (2026-11-27, two shared cores, 2 min 50 s of CPU time): accuracy 76.2% on 701 held-out pairs of 97 films, standard error
1.6. For comparison: choosing the longer review is right in 50.7%, and logistic regression on words and bigrams of such pairs
has 79%. It trains on 2,523 pairs for two epochs, with a final training accuracy of 93%.

With `SameFilm()`, which also asks for unfavourable reviews, each pair occurs twice with the roles swapped, and only the
question tells them apart: in the same number of steps it does not learn that (49.9% of 1,402).
"""

from align.pair_report import Agreement
from align.pair_rows import PairRows
from align.pair_tokens import PairTokens
from align.review_pairs import SameFilm
from align.reward import RewardModel, Score
from experiments.sft.reviews_tiny import REVIEWS
from experiments.sft.reviews_tiny import get_config as reviewer
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD


def pairs(parent: Run) -> PairTokens:
  """Preference pairs in the parent's vocabulary."""
  return PairTokens(name='reviews-pairs', corpus=REVIEWS, vocabulary=parent.rows.vocabulary,
                    pairing=SameFilm(asked=('fresh',)), longest=128)


def reward(parent: Run) -> Run:
  """The training run of the reward model, from `parent`."""
  return Run(
      name='reviews-reward', model=parent.model, restore=parent, edits=(Score(),), rows=PairRows(pairs(parent)),
      objective=RewardModel(margin=0.0, centring=0.01), batch=32, parts=4, steps=160,
      optimizer=Optimizer(Muon(lr=3e-3, others=AdamW(lr=3e-3)), WSD(warmup=10, decay=0.7)),
      watch=Watch(heldout=0), saving=Saving(every=0))


def get_config() -> Agreement:
  return Agreement(name='reviews-reward-agreement', run=reward(reviewer()))
