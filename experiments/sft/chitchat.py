"""GPT-2 124M taught to chat: human conversations in ChatML, loss on the answers alone.

  python -m experiments.launch --config=experiments/sft/chitchat.py

It goes on from `experiments/pretrain/gpt2_124m.py`, which is trained first if it is not there. Meant for one H100; not run
yet. Its `_tiny` sibling goes on from the quick start and runs on a laptop.
"""

from dataclasses import replace

from align.chitchat import Chitchat
from align.conversations import Turns
from align.sft import ChatTokens
from experiments.pretrain.gpt2_124m import get_config as parent
from train.data.corpus import Corpus
from train.data.dedupe import ExactDuplicates
from train.data.pack import Whole
from train.data.rows import Rows
from train.objectives import NextToken
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD

TALKS = Corpus(name='chitchat', sources=(Chitchat(),), stages=(Turns(4), ExactDuplicates()))


def taught(run: Run, length: int) -> Run:
  """The run's model, from its parameters on, with rows of whole conversations in its own vocabulary."""
  tokens = ChatTokens(name='chitchat-tokens', corpus=TALKS, vocabulary=run.rows.vocabulary, longest=length + 1)
  return replace(run, restore=run, edits=(), rows=Rows(tokens, length, packing=Whole()), objective=NextToken())


def get_config() -> Run:
  return replace(
      taught(parent(), length=1024),
      name='gpt2-124m-chitchat',
      batch=32,
      steps=240,                        # x 32 x 1024 = 7.9 million tokens
      optimizer=Optimizer(Muon(lr=6e-4, others=AdamW(lr=6e-4)), WSD(warmup=10, decay=0.7)),
      parts=1,
      watch=Watch(heldout=40, heldout_rows=128),
      saving=Saving(every=80),
  )
