"""A reward model trained on people's ratings of their own conversations, and its accuracy on held-out ratings.

  python -m experiments.launch --config=experiments/reward/chitchat_tiny.py

Two CPU cores, about two minutes; its parent, `experiments/sft/chitchat_tiny.py`, is trained first if it is not there. A pair is
two conversations with the same opening whose mean ratings (witty, upbeat, interesting; 1 to 10, given by the participants)
differ by two points or more.

Result (2026-11-27, two shared cores, 1 min 41 s with the pairs): accuracy 55.9% on 886 held-out pairs of 384 conversations. For
comparison: choosing the side with more of its first 256 tokens is right in 51.6%, the longer whole conversation in 69.8%. On
training pairs, of 1,492 conversations, the accuracy is 89%: it overfits. A million parameters that read 256 tokens are not
enough.
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
  """The rated pairs in the parent's vocabulary, each side cut to `longest` tokens."""
  return PairTokens(name='chitchat-pairs', corpus=RATED, vocabulary=parent.rows.vocabulary, pairing=Rated(), longest=longest)


def reward(parent: Run) -> Run:
  """The training run of the reward model, from `parent`."""
  return Run(
      name='chitchat-reward', model=parent.model, restore=parent, edits=(Score(),), rows=PairRows(pairs(parent, 256)),
      objective=RewardModel(margin=0.1, centring=0.01), batch=16, parts=4, steps=200,
      optimizer=Optimizer(Muon(lr=1e-3, others=AdamW(lr=1e-3)), WSD(warmup=10, decay=0.5)),
      watch=Watch(heldout=0, metrics=10), saving=Saving(every=0))


def get_config() -> Agreement:
  return Agreement(name='chitchat-reward-agreement', run=reward(chat()))
