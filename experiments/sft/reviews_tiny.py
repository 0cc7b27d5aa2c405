"""SFT of the small model of film texts to write a favourable or an unfavourable one-line review, as asked.

  python -m experiments.launch --config=experiments/sft/reviews_tiny.py

Two CPU cores, minutes; its parent, `experiments/pretrain/films_tiny.py`, is trained first if it is not there.

Result (2026-11-27, two shared cores, 3 min 44 s): on reviews of 105 held-out films the loss falls to 4.562 nats a token (1.943
bits a byte; 2.066 after 50 of the 300 steps). It hardly depends on which kind was asked for: of 701 pairs of a fresh and a
rotten review, matching each with its own question is likelier than the reverse in 52.6% (standard error 1.9).
"""

from dataclasses import replace

from align.reviews import Reviews
from align.sft import ChatTokens
from experiments.pretrain.films_tiny import get_config as parent
from train.data.corpus import Corpus
from train.data.dedupe import ExactDuplicates
from train.data.pack import Whole
from train.data.rows import Rows
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Watch
from train.schedule import WSD

REVIEWS = Corpus(name='reviews', sources=(Reviews(),), stages=(ExactDuplicates(),), heldout_modulo=5, heldout_by='film')


def get_config() -> Run:
  run = parent()
  tokens = ChatTokens(name='reviews-tokens', corpus=REVIEWS, vocabulary=run.rows.vocabulary, longest=257)
  return replace(
      run,
      name='films-reviews',
      restore=run,
      rows=Rows(tokens, length=256, packing=Whole()),
      batch=8,
      steps=300,
      optimizer=Optimizer(Muon(lr=5e-3, others=AdamW(lr=5e-3)), WSD(warmup=10, decay=0.7)),
      watch=Watch(heldout=50, heldout_rows=128),
  )
