"""GRPO (Shao et al. 2024) on a task with a verifier: a model that only guesses learns which of four numbers is the largest.

  python -m experiments.launch --config=experiments/grpo/largest_tiny.py

The parent is fine-tuned to answer questions such as "Which is the largest: 3 8 1 5?" with one of the four numbers at random. In
GRPO the only signal is the verifier's reward of right answers.

Two shared CPU cores: the parent 34 s, then 3 min 57 s.

Result (2026-11-27): of 256 held-out problems (orders of numbers that were never seen in training) it answers 97.7% rightly
after 150 steps (62.5% after 25, 93.0% after 50); of its first answers to training problems 16.8% were right. The log-probs
computed in sampling and in training differ by 3e-7 nats at most.
"""

from align.credit import Grouped
from align.kl import Fixed
from align.policy import GRPO
from align.questions import FromTask
from align.rewards import Part, Verified
from align.rollout import Rollouts
from align.sft import ChatTokens
from align.tasks import Guesses, Largest
from model.chat import Plain
from model.sizes import llama
from train.data.corpus import Corpus
from train.data.pack import Whole
from train.data.rows import Rows
from train.data.vocabulary import Vocabulary
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD, Constant

TASK = Largest()
GUESSES = Corpus(name='guesses', sources=(Guesses(TASK, 2000),), stages=(), heldout_modulo=10)
VOCABULARY = Vocabulary(name='guesses-bpe', corpus=GUESSES, size=320)


def guesser() -> Run:
  """The parent: a model that answers with one of the four numbers, each equally likely."""
  tokens = ChatTokens(name='guesses-tokens', corpus=GUESSES, vocabulary=VOCABULARY, template=Plain(), longest=65)
  return Run(name='guesser', model=llama(VOCABULARY.size, width=64, layers=2, count=4), rows=Rows(tokens, 64, packing=Whole()),
             batch=32, steps=200, optimizer=Optimizer(Muon(lr=1e-2, others=AdamW(lr=1e-2)), WSD(warmup=10, decay=0.5)),
             watch=Watch(heldout=100), saving=Saving(every=0))


def get_config() -> Run:
  parent = guesser()
  rows = Rollouts(questions=FromTask(TASK), rewards=(Part('right', Verified(TASK)),), vocabulary=VOCABULARY, template=Plain(),
                  credit=Grouped(), asked=32, group=8, prompt_tokens=56, answer_tokens=8, kl=Fixed(0.0))
  return Run(name='largest-grpo', model=parent.model, restore=parent, rows=rows, objective=GRPO(), batch=256, steps=150,
             optimizer=Optimizer(AdamW(lr=1e-3, weight_decay=0.0), Constant()),
             watch=Watch(heldout=25, heldout_rows=256, metrics=5), saving=Saving(every=50))
