"""A run so small that tests can train it, and what they ask of such runs."""

from pathlib import Path

import jax
import numpy as np

from model.sizes import llama
from train.artifact import Store
from train.data.corpus import Corpus
from train.data.readers import TextFiles
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary
from train.run import Run, Saving, Watch
from train.saving import shelf


def tiny_run(folder: Path) -> Run:
  """Two steps of one layer, on six files that are written into `folder`/in."""
  (folder / 'in').mkdir()
  for number in range(6):
    text = f'The state of the union in year {number} is strong. It will be stronger.\n' * 20
    (folder / 'in' / f'{number}.txt').write_text(text)
  corpus = Corpus(name='c', sources=(TextFiles(f'{folder}/in/*.txt'),), stages=(), heldout_modulo=3)
  tokens = Tokens(name='t', corpus=corpus, vocabulary=Vocabulary(name='v', corpus=corpus, size=300))
  return Run(name='r', model=llama(300, 16, 1, 2), rows=Rows(tokens, length=16), batch=8, steps=2,
             watch=Watch(heldout=0), saving=Saving(every=0))


def same(first, second):
  """Fails unless two trees are equal to the bit."""
  assert jax.tree.structure(first) == jax.tree.structure(second)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), first, second)


def checkpoint(store: Store, run: Run) -> set[str]:
  """The names of the leaves in the last save of a run that is made."""
  return set(shelf.look(store.folder(run) / 'checkpoints').seals[run.steps].leaves)
