"""What a run on preferences reads: pairs, one a row, in an order of their own for every epoch, perhaps with a reference.

    pairs = PairTokens(...)
    PairRows(pairs)                                 for a reward model, for objectives without a reference, for adapters
    PairRows(Scored(name='reference', pairs=pairs, by=parent))     adds a column: what the parent makes of each side

A reference is an artifact of the pairs and of the run whose parameters scored them, so it can be neither of other pairs,
nor of another template, nor of another policy than it says.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from jax.sharding import Mesh

from align.dpo import said
from align.pair_tokens import PairSplit, PairTokens
from model.adapt import LoRA
from model.errors import ConfigError, DataError
from train.artifact import Artifact, Store, digest, how, read_json, write_json
from train.build import Built
from train.data.document import SPLITS, Split
from train.data.pipeline import Batches, Placement
from train.data.shuffle import key, permutation
from train.data.visits import RECORDS, Row
from train.data.vocabulary import Vocabulary
from train.run import Run
from train.trained import load
from train.types import Batch, Form, Judge, LossFn, Mean, Params, Setting

REFERENCE = 'reference.json'


@dataclass(frozen=True)
class ScoredSplit:
  """The pairs of a split, and how likely a reference finds the answers of each side."""

  pairs: PairSplit
  reference: np.ndarray            # f32[pairs, 2], nats: sums over the tokens of answers
  sha256: str

  def __len__(self) -> int:
    return len(self.pairs)

  def row(self, pair: int, length: int) -> Row:
    """As `PairSplit.row` has it, and reference f32[2]."""
    return self.pairs.row(pair, length) | {'reference': np.asarray(self.reference[pair])}

  def describe(self, pair: int) -> str:
    return self.pairs.describe(pair)


@dataclass(frozen=True, kw_only=True)
class Scored(Artifact):
  """Pairs with the log-probs that a run's parameters give them. Its folder has `train.reference.npy` f32[pairs, 2]."""

  pairs: PairTokens
  by: Run
  batch: int = how(16)             # pairs at a time

  def __post_init__(self):
    if self.batch < 1:
      raise ConfigError('config.out-of-range', f'batch = {self.batch}', 'it counts pairs', 'use 1 or more')
    if digest(self.by.rows.vocabulary) != digest(self.pairs.vocabulary):
      raise ConfigError('config.other-vocabulary', f'by = {self.by.name}, pairs of {self.pairs.vocabulary.name}',
                        f'its parameters know the ids of {self.by.rows.vocabulary.name}', 'use pairs in that vocabulary')

  @property
  def vocabulary(self) -> Vocabulary:
    return self.pairs.vocabulary

  @property
  def longest(self) -> int:
    return self.pairs.longest

  def make(self, folder: Path, store: Store) -> None:
    """Scores all pairs, both splits."""
    trained = load(self.by, store)
    score = jax.jit(lambda params, batch: said(trained.model, params, batch).logp_BP)
    marks = {}
    for split in SPLITS:
      pairs = self.pairs.open(store, split)
      scores = [np.asarray(score(trained.params, batch)) for batch in lots(each(pairs, self.longest), self.batch)]
      reference = np.concatenate([np.zeros((0, 2), np.float32), *scores])[:len(pairs)]
      np.save(folder / f'{split}.reference.npy', reference)
      marks[split] = _mark(pairs, reference)
    write_json(folder / REFERENCE, marks)

  def open(self, store: Store, split: Split) -> ScoredSplit:
    """The pairs of a split. Raises: DataError if they are not those that were scored, or the scores not what was written."""
    pairs, folder = self.pairs.open(store, split), store.find(self)
    try:
      reference, wanted = np.load(folder / f'{split}.reference.npy'), read_json(folder / REFERENCE)[split]
    except (OSError, ValueError, KeyError) as error:
      raise DataError('data.damaged', f'{split} reference in {folder}: {error}', 'a file is missing or cannot be read',
                      'delete the folder and launch again to make it anew') from None
    if _mark(pairs, reference) != wanted:
      raise DataError('data.changed', f'{split} reference in {folder}', 'the pairs are not those that were scored, or the '
                      'scores not those that were written', 'delete the folder and launch again to make it anew')
    return ScoredSplit(pairs, reference, wanted)


def each(pairs: PairSplit | ScoredSplit, length: int) -> Iterator[Row]:
  """The rows of all pairs, in order."""
  return (pairs.row(pair, length) for pair in range(len(pairs)))


def lots(rows: Iterable[Row], size: int) -> Iterator[Row]:
  """All rows, `size` at a time; the last lot is filled with rows of zeros, which weigh nothing."""
  left = iter(rows)
  while lot := list(islice(left, size)):
    lot += [{name: np.zeros_like(value) for name, value in lot[0].items()}] * (size - len(lot))
    yield {name: np.stack([row[name] for row in lot]) for name in lot[0]}


def _mark(pairs: PairSplit, reference: np.ndarray) -> str:
  """What identifies pairs with their scores."""
  return hashlib.sha256(pairs.sha256.encode() + np.ascontiguousarray(reference).tobytes()).hexdigest()


class PairVisits:
  """The endless order of pairs: row g is a function of the seed and g alone, each pair once an epoch."""

  def __init__(self, pairs: PairSplit | ScoredSplit, length: int, seed: int):
    self.pairs, self.length, self.seed = pairs, length, seed
    self.definition: dict[str, Any] = {'length': length, 'seed': seed, 'pairs': pairs.sha256}
    self._order = lru_cache(maxsize=2)(lambda epoch: permutation(key(seed, 'pairs', epoch), len(pairs)))

  @property
  def rows(self) -> int:
    return len(self.pairs)

  def __getitem__(self, number: int) -> Row:
    """As `PairSplit.row` or `ScoredSplit.row` has it; record i32[]: the number, modulo 2^31."""
    return self.pairs.row(self._pair(number), self.length) | {'record': np.asarray(number % RECORDS, np.int32)}

  def describe(self, number: int) -> str:
    """Where a row comes from, for a person."""
    return f'pair {self._pair(number)} of epoch {number // self.rows}: {self.pairs.describe(self._pair(number))}'

  def _pair(self, number: int) -> int:
    epoch, visit = divmod(number, self.rows)
    return int(self._order(epoch)[visit])


@dataclass(frozen=True)
class PairRows:
  """Pairs, one a row of two sides of `length` tokens."""

  pairs: PairTokens | Scored
  seed: int = 0

  form: ClassVar[Form] = 'pairs'

  @property
  def vocabulary(self) -> Vocabulary:
    return self.pairs.vocabulary

  @property
  def length(self) -> int:
    return self.pairs.longest

  @property
  def reads(self) -> int:
    return 2 * self.length

  def check(self, run: Run) -> None:
    """Raises: ConfigError where what is compared with is missing, or is another than the parent."""
    if not getattr(run.objective, 'referred', False):
      return
    if isinstance(self.pairs, Scored):
      if run.restore is None or digest(self.pairs.by) != digest(run.restore):
        raise ConfigError('config.other-reference', f'rows scored by {self.pairs.by.name}', 'a policy begins as its reference',
                          'set restore to the run that scored the pairs')
    elif not any(isinstance(edit, LoRA) for edit in run.edits):
      raise ConfigError('dpo.no-reference', f'objective = {type(run.objective).__name__}, rows of {self.pairs.name}',
                        'the policy is compared with what it was',
                        'use PairRows(Scored(..., by=the parent)), or edits=(LoRA(),)')

  def visits(self, store: Store) -> PairVisits:
    """The order of all pairs. Raises: DataError if they are not as they were made."""
    return PairVisits(self.pairs.open(store, 'train'), self.length, self.seed)

  def holds(self, run: Run, built: Built) -> dict[str, Any]:
    return {}

  def open(self, setting: Setting) -> Batches:
    return self.source(setting.store, batch=setting.run.batch, mesh=setting.built.mesh)

  def source(self, store: Store, *, batch: int, mesh: Mesh) -> Batches:
    """Batches of so many pairs on the mesh, of which this process makes those that its devices hold."""
    placement = Placement(mesh, batch)
    return Batches(self.visits(store), batch, rows=placement.rows, place=placement)

  def judge(self, setting: Setting, rows: int) -> Judge:
    """The means of the run's loss and metrics over held-out pairs, the first so many of them in the order of their own."""
    pairs = self.pairs.open(setting.store, 'heldout')
    if not len(pairs):
      raise DataError('pair.none', f'held-out pairs of {setting.run.name}', 'there is none',
                      'lower heldout_modulo of the corpus')
    visits = PairVisits(pairs, self.length, self.seed)
    batches = list(lots(map(visits.__getitem__, range(min(rows, visits.rows))), setting.run.batch))
    means = Means(setting.run.objective(setting.built.model))
    return lambda params: {f'heldout_{name}': value for name, value in means(params, batches).items()}


class Means:
  """The means of a loss and of each of its metrics over rows, however many lots they come in."""

  def __init__(self, loss_fn: LossFn):
    def means(params: Params, batch: Batch) -> dict[str, Mean]:
      loss = loss_fn(params, {}, batch, jax.random.key(0))
      return {'loss': loss.objective, **loss.metrics}

    self.of = jax.jit(means)

  def __call__(self, params: Params, batches: Iterable[Row]) -> dict[str, float]:
    parts = jax.device_get([self.of(params, batch) for batch in batches])
    return {name: float(sum(part[name].total for part in parts) / max(sum(part[name].weight for part in parts), 1e-20))
            for name in parts[0]}
