"""What tests of alignment learn from: records as tokens, prose in the same ids, and a parent that has hardly seen any of it."""

import json
from pathlib import Path
from typing import TypeVar

from tests.data.fake_corpus import FakeCorpus, made, texts
from tests.model.variants import small
from train.artifact import Artifact, Store
from train.data.corpus import Corpus
from train.data.readers import Lines
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import AnyVocabulary, Vocabulary
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch

Learnt = TypeVar('Learnt', bound=Artifact)


def made_of(kind: type[Learnt], lines: type[Lines], name: str, root: Path, records, **fields) -> tuple[Learnt, Store]:
  """Records in the ids of a vocabulary that was learnt from other text, one in four held out, made under `root`."""
  (root / f'{name}.jsonl').write_text('\n'.join(map(json.dumps, records)))
  corpus = Corpus(name=name, sources=(lines(f'{root}/{name}.jsonl'),), stages=(), heldout_modulo=4, workers=1)
  vocabulary = Vocabulary(name='vocabulary', corpus=FakeCorpus(name='fake', train=texts(20)), size=340)
  tokens = kind(name=f'{name}-tokens', corpus=corpus, vocabulary=vocabulary, **fields)
  store = Store(root / 'runs')
  store.make(tokens)
  return tokens, store


def prose(vocabulary: AnyVocabulary) -> Tokens:
  """Texts in those ids."""
  return Tokens(name='prose', corpus=FakeCorpus(name='fake', train=texts(20)), vocabulary=vocabulary)


def parent(tokens) -> Run:
  """A model of those tokens after one step."""
  return Run(name='parent', model=small(vocab=340, layers=1), rows=Rows(tokens, 32), batch=8, steps=1,
             optimizer=Optimizer(AdamW(lr=1e-2)), watch=Watch(heldout=0), saving=Saving(every=0))


def begun(root: Path) -> tuple[Run, Store, Vocabulary]:
  """(parent, store, vocabulary), made under `root`."""
  tokens, store = made(root)
  before = parent(tokens)
  store.make(before)
  return before, store, tokens.vocabulary
