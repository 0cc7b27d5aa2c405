"""The reference's log-probs of answers, computed once and kept on disk: what DPO and KTO compare a policy with.

An artifact of the answers and of the run whose parameters scored them: stored scores can belong neither to other answers, nor
to another template, nor to another reference than it says. Its folder has for each split

    train.reference.npy   f32[rows, 2], nats: sums over the tokens of a side's answers
    reference.json        a hash of the rows with their scores
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import jax
import numpy as np

from align.answer_logps import pair_logps
from align.batch_means import in_batches
from model.adapt import LoRA
from model.errors import ConfigError, DataError
from model.new_tokens import newest
from train.artifact import Artifact, Store, digest, how, read_json, write_json
from train.data.document import SPLITS, Split
from train.data.visits import Row
from train.data.vocabulary import AnyVocabulary
from train.run import Parent, Run
from train.trained import load

REFERENCE = 'reference.json'


class Opened(Protocol):
  """An open split whose rows have two sides: tokens, segments, mask [2, length]."""

  @property
  def sha256(self) -> str: ...         # of all that is in it
  def __len__(self) -> int: ...
  def row(self, index: int, length: int, /) -> Row: ...
  def describe(self, index: int, /) -> str: ...


class Sided(Protocol):
  """An artifact that opens to such splits."""

  @property
  def name(self) -> str: ...
  @property
  def vocabulary(self) -> AnyVocabulary: ...
  @property
  def longest(self) -> int: ...
  def open(self, store: Store, split: Split) -> Opened: ...


@dataclass(frozen=True)
class ScoredSplit:
  """The rows of a split with the reference's log-probs of the answers of each side."""

  rows: Opened
  reference: np.ndarray            # f32[rows, 2]
  sha256: str

  def __len__(self) -> int:
    return len(self.rows)

  def row(self, index: int, length: int) -> Row:
    """The split's own columns and reference f32[2]."""
    return self.rows.row(index, length) | {'reference': np.asarray(self.reference[index])}

  def describe(self, index: int) -> str:
    return self.rows.describe(index)


@dataclass(frozen=True, kw_only=True)
class Reference(Artifact):
  """The log-probs of the answers under the parameters of the run `by`."""

  by: Parent
  batch: int = how(16)             # rows at a time

  @property
  @abstractmethod
  def answers(self) -> Sided:
    """The rows whose answers are scored."""

  def __post_init__(self):
    if self.batch < 1:
      raise ConfigError('config.out-of-range', f'batch = {self.batch}', 'it counts rows', 'use 1 or more')
    if digest(self.by.vocabulary) != digest(self.vocabulary):
      raise ConfigError('config.other-vocabulary', f'by = {self.by.name}, answers in {self.vocabulary.name}',
                        f'its parameters know the ids of {self.by.vocabulary.name}', 'use answers in that vocabulary')

  @property
  def vocabulary(self) -> AnyVocabulary:
    return self.answers.vocabulary

  @property
  def longest(self) -> int:
    return self.answers.longest

  def make(self, folder: Path, store: Store) -> None:
    """Writes the log-probs of all rows of both splits."""
    trained = load(self.by, store)
    score = jax.jit(lambda params, batch: pair_logps(trained.model, params, batch).logp_BP)
    marks = {}
    for split in SPLITS:
      rows = self.answers.open(store, split)
      scores = [np.asarray(score(trained.params, batch)) for batch in in_batches(all_rows(rows, self.longest), self.batch)]
      reference = np.concatenate([np.zeros((0, 2), np.float32), *scores])[:len(rows)]
      np.save(folder / f'{split}.reference.npy', reference)
      marks[split] = _mark(rows, reference)
    write_json(folder / REFERENCE, marks)

  def open(self, store: Store, split: Split) -> ScoredSplit:
    """The rows of a split. Raises: DataError if they are not those that were scored, or the scores not what was written."""
    rows, folder = self.answers.open(store, split), store.find(self)
    try:
      reference, wanted = np.load(folder / f'{split}.reference.npy'), read_json(folder / REFERENCE)[split]
    except (OSError, ValueError, KeyError) as error:
      raise DataError('data.damaged', f'{split} reference in {folder}: {error}', 'a file is missing or cannot be read',
                      'delete the folder and launch again to make it anew') from None
    if _mark(rows, reference) != wanted:
      raise DataError('data.changed', f'{split} reference in {folder}', 'the answers are not those that were scored, or the '
                      'scores not those that were written', 'delete the folder and launch again to make it anew')
    return ScoredSplit(rows, reference, wanted)


def check_reference(run: Run, answers: Sided | Reference) -> None:
  """Raises: ConfigError unless the reference is the very policy that the run begins as."""
  if isinstance(answers, Reference):
    if run.restore is None or digest(answers.by) != digest(run.restore):
      raise ConfigError('config.other-reference', f'rows scored by {answers.by.name}', 'a policy begins as its reference',
                        'set restore to the run that scored them')
  elif not any(isinstance(edit, LoRA) for edit in run.edits):
    raise ConfigError('dpo.no-reference', f'objective = {type(run.objective).__name__}, rows of {answers.name}',
                      'the policy is compared with what it was',
                      'use rows that the parent scored, Scored(..., by=the parent), or edits=(LoRA(),)')
  elif newest(run.lineage_of_edits):
    raise ConfigError('dpo.moving-reference', f'rows of {answers.name}, edits = {run.lineage_of_edits}',
                      'rows of new tokens learn beside adapters, so the policy without its adapters is not what it was',
                      'put Merge() before LoRA among the edits, or use rows that the parent scored')


def all_rows(rows: Opened, length: int) -> Iterator[Row]:
  """Every row of a split, in order."""
  return (rows.row(index, length) for index in range(len(rows)))


def _mark(rows: Opened, reference: np.ndarray) -> str:
  """What identifies rows with their scores."""
  return hashlib.sha256(rows.sha256.encode() + np.ascontiguousarray(reference).tobytes()).hexdigest()
