"""Perplexity as a task: nats, tokens and bytes of each held-out document, so that they can be resampled."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from model.errors import ConfigError
from train.artifact import Store, how
from train.data.corpus import Corpus
from train.data.document import Split
from train.eval.items import check_counts, chosen, named
from train.eval.perplexity import score_documents
from train.eval.task import Taken, Task
from train.run import Parent
from train.trained import Trained


@dataclass(frozen=True, kw_only=True)
class Foretelling(Task):
  """Next-token perplexity and bits per byte of documents, which a model reads `length` tokens at a time.

  Each token is scored once, with at least `overlap` of a window before it where its document has so much. Bits per byte
  compare models of any tokenizer; perplexities only those of one.
  """

  corpus: Corpus
  splits: tuple[Split, ...] = ('heldout',)
  items: int = 200
  longest: int = 100_000                  # bytes; longer documents are left out
  length: int = 512
  overlap: float = 0.5
  rows: int = how(8)                      # windows at a time

  figures: ClassVar = ('bits_per_byte', 'perplexity', 'loss')

  def __post_init__(self):
    check_counts(items=self.items, longest=self.longest, length=self.length, rows=self.rows)
    if not 0 <= self.overlap < 1:
      raise ConfigError('config.out-of-range', f'overlap = {self.overlap}', 'it is a share of a window, but not all',
                        'use 0 or more and less than 1')

  def check(self, run: Parent) -> None:
    if not run.model.causal:
      raise ConfigError('task.not-causal', f'task {self.name!r} on {run.name}', 'this model reads from both sides: it gives a '
                        'text no probability as a whole', 'give a run with a causal model')

  def take(self, trained: Trained, store: Store) -> Taken:
    """Columns 'nll', 'tokens' and 'bytes'."""
    held = chosen(self.corpus, store, self.splits, self.items, self.longest)
    stride = max(1, round(self.length * (1 - self.overlap)))
    scores = score_documents(trained.model, trained.params, trained.tokenizer, held, length=self.length, stride=stride,
                             batch=self.rows)
    return Taken(named(held), {'nll': np.array([score.nll for score in scores]),
                               'tokens': np.array([score.tokens for score in scores]),
                               'bytes': np.array([score.bytes for score in scores])})
