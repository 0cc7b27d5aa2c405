"""Pre-training of a small language model on film reviews, plots and speeches: the parent of the `reviews_tiny.py` experiments.

  python -m experiments.launch --config=experiments/pretrain/films_tiny.py

Two CPU cores, minutes. One film in five is held out with all its texts, by a hash of its name, here and in all experiments that
start from this one: neither the vocabulary nor the model has seen any review or plot of these films.

Result (2026-11-27, two shared cores, 5 min 9 s, and half a minute for corpora, vocabulary and tokens): 1.797 held-out bits a
byte on films and speeches, 4.351 nats a token; after 100 of the 600 steps 2.296. Its samples sound like reviews and make little
sense.
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
  """The tokens of a corpus, in the vocabulary of films."""
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
