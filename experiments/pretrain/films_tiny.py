"""A small language model of film reviews, plots and presidents: the parent of the experiments on preferences of critics.

  python -m experiments.launch --config=experiments/pretrain/films_tiny.py

Two CPU cores, minutes. Films are held out as a whole, one in five, by the hash of their names, in this and in all that goes
on from it: neither the vocabulary nor the model has seen any of their reviews or plots.

Result (2026-11-27, two cores that others shared, 5 min 9 s beside half a minute for corpora, vocabulary and tokens): 1.797
held-out bits a byte of films and speeches, 4.351 nats a token, from 2.296 after 100 of the 600 steps. What it writes has the
sound of a review and little sense.
"""

from dataclasses import replace

from align.reviews import FilmTexts
from experiments.quickstart.pretrain import CORPUS as SPEECHES
from model.config import RMSNorm
from model.sizes import llama
from train.data.corpus import Corpus
from train.data.dedupe import ExactDuplicates
from train.data.mixture import Mixture, Share
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD

FILMS = Corpus(name='films', sources=(FilmTexts(),), stages=(ExactDuplicates(),), heldout_modulo=5, heldout_by='film')
VOCABULARY = Vocabulary(name='films-bpe', corpus=FILMS, size=4096)


def tokens(corpus: Corpus) -> Tokens:
  """The corpus in the vocabulary of films."""
  return Tokens(name=f'{corpus.name}-tokens', corpus=corpus, vocabulary=VOCABULARY)


def get_config() -> Run:
  model = llama(VOCABULARY.size, width=128, layers=4, count=4)
  return Run(
      name='films-lm',
      model=replace(model, attention=replace(model.attention, qk_norm=RMSNorm())),
      rows=Rows(Mixture((Share(tokens(FILMS), 2.0), Share(tokens(SPEECHES), 1.0))), length=128),
      batch=16,
      steps=600,
      optimizer=Optimizer(Muon(lr=1e-2, others=AdamW(lr=1e-2)), WSD(warmup=20, decay=0.6)),
      parts=2,
      watch=Watch(heldout=100),
      saving=Saving(every=0),
  )
