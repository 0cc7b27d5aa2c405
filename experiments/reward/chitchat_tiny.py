"""A reward model from people's ratings of their own conversations, and how often it agrees with ratings it never saw.

  python -m experiments.launch --config=experiments/reward/chitchat_tiny.py

Two CPU cores, about two minutes beside its parent, `experiments/sft/chitchat_tiny.py`. A pair is two conversations with one
opening whose mean ratings (witty, upbeat, interesting; 1 to 10, given by those who talked) are two points apart or more.

Result (2026-11-27, two cores that others shared, 1 min 41 s with pairs and all): 55.9% of 886 held-out pairs, which come
from 384 conversations; the longer side of those 256 tokens is preferred in 51.6%, the longer whole conversation in 69.8%.
By the end it agrees with 89% of the pairs that it learns from: what it learns of 1,492 conversations hardly carries over. A
million parameters that read the first minute of a talk are not enough.
"""

from align.chitchat import Chitchat
from align.conversations import Turns
from align.pair_report import Agreement
from align.pair_rows import PairRows
from align.pair_tokens import PairTokens
from align.preferences import Rated
from align.reward import RewardModel, Score
from experiments.sft.chitchat_tiny import get_config as chat
from train.data.corpus import Corpus
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD

RATED = Corpus(name='chitchat-rated', sources=(Chitchat(),), stages=(Turns(6),), heldout_modulo=5)


def pairs(parent: Run, longest: int) -> PairTokens:
  """The rated pairs in the parent's vocabulary; conversations lose what goes beyond so many tokens."""
  return PairTokens(name='chitchat-pairs', corpus=RATED, vocabulary=parent.rows.vocabulary, pairing=Rated(), longest=longest)


def reward(parent: Run) -> Run:
  """The run."""
  return Run(
      name='chitchat-reward', model=parent.model, restore=parent, edits=(Score(),), rows=PairRows(pairs(parent, 256)),
      objective=RewardModel(margin=0.1, centring=0.01), batch=16, parts=4, steps=200,
      optimizer=Optimizer(Muon(lr=1e-3, others=AdamW(lr=1e-3)), WSD(warmup=10, decay=0.5)),
      watch=Watch(heldout=0, metrics=10), saving=Saving(every=0))


def get_config() -> Agreement:
  return Agreement(name='chitchat-reward-agreement', run=reward(chat()))
