"""SFT of GPT-2 124M on human conversations in ChatML, with the loss on answers only.

  python -m experiments.launch --config=experiments/sft/chitchat.py

Its parent, `experiments/pretrain/gpt2_124m.py`, is trained first if it is not there. For one H100; not run yet.
`chitchat_tiny.py` is the same fine-tuning of the quick start's model, for two CPU cores.
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


def fine_tuned(run: Run, length: int) -> Run:
  """A run that continues from `run` on these conversations, each whole in a row of `length`, in the run's own vocabulary."""
  tokens = ChatTokens(name='chitchat-tokens', corpus=TALKS, vocabulary=run.rows.vocabulary, longest=length + 1)
  return replace(run, restore=run, edits=(), rows=Rows(tokens, length, packing=Whole()), objective=NextToken())


def get_config() -> Run:
  return replace(
      fine_tuned(parent(), length=1024),
      name='gpt2-124m-chitchat',
      batch=32,
      steps=240,                        # x 32 x 1024 = 7.9 million tokens
      optimizer=Optimizer(Muon(lr=6e-4, others=AdamW(lr=6e-4)), WSD(warmup=10, decay=0.7)),
      parts=1,
      watch=Watch(heldout=40, heldout_rows=128),
      saving=Saving(every=80),
  )
