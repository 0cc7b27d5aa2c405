"""Constitutional AI for GPT-2 124M: a larger model behind a URL criticises and revises its answers, and it learns from that.

  python -m experiments.launch --config=experiments/constitution/gpt2_124m.py

Its parent is the chat model of `experiments/sft/chitchat.py`, trained first if it is not there. A model of 124 million
parameters cannot criticise, so the critic is a model on a server with OpenAI's API, with the principles of `harmless.toml`.
CRITIC below names server and model; `--config.rows.tokens.shares.0.tokens.corpus.sources.0.revisions.critic.model=...` changes
the model.

For one H100 beside the server; not run yet. `desk_tiny.py` runs the same pipeline on two CPU cores, critic included.
"""

from dataclasses import replace
from pathlib import Path

from align.endpoint import Endpoint
from align.generated import FromGenerated
from align.judge import ByRun
from align.principles import read_principles
from align.questions import FromTalks
from align.revisions import Revisions
from align.sft import ChatTokens
from experiments.sft.chitchat import TALKS
from experiments.sft.chitchat import get_config as parent
from train.data.corpus import Corpus
from train.data.mixture import Mixture, Share
from train.data.pack import Whole
from train.data.rows import Rows
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD

PRINCIPLES = read_principles(Path(__file__).with_name('harmless.toml'))
CRITIC = Endpoint('http://localhost:8000/v1', 'critic', temperature=0.7)


def get_config() -> Run:
  chat = parent()
  assert isinstance(chat.rows, Rows) and isinstance(chat.rows.tokens, ChatTokens)
  writer = ByRun(chat, tokens=128, prompt_tokens=896, rows=128)
  revisions = Revisions(name='chitchat-revisions', questions=FromTalks(TALKS), principles=PRINCIPLES, writer=writer,
                        critic=CRITIC, count=4000, draws=4)
  revised = Corpus(name='chitchat-revised', sources=(FromGenerated(revisions),), stages=())
  mended = ChatTokens(name='chitchat-revised-tokens', corpus=revised, vocabulary=chat.rows.vocabulary, longest=1025)
  return replace(
      chat,
      name='gpt2-124m-mended',
      restore=chat,
      rows=Rows(Mixture((Share(mended, 1.0), Share(chat.rows.tokens, 1.0))), 1024, packing=Whole()),
      batch=32,
      steps=120,
      optimizer=Optimizer(Muon(lr=3e-4, others=AdamW(lr=3e-4)), WSD(warmup=10, decay=0.7)),
      watch=Watch(heldout=40, heldout_rows=128),
      saving=Saving(every=60),
  )
