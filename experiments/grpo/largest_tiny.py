"""A verifiable task learnt from reward alone (GRPO, Shao et al. 2024), by a model that only guesses.

  python -m experiments.launch --config=experiments/grpo/largest_tiny.py

The parent is taught what an answer looks like: "Which is the largest: 3 8 1 5?", answered by any of the four numbers alike.
From then on nothing but the verifier says which is right.

Result (2026-11-27, two cores that others shared; the parent 34 s, then 3 min 57 s): of 256 held-out problems, whose numbers
it never saw in that order, it answers 97.7% rightly after 150 steps (62.5% after 25, 93.0% after 50); its first answers to
training problems were right in 16.8%. Log-probs of sampling and of learning differ by 3e-7 nats at most.
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
  """The parent."""
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
