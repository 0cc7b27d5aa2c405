"""What a run on preferences reads: pairs, one a row, in an order of their own for every epoch, perhaps with a reference.

    pairs = PairTokens(...)
    PairRows(pairs)                                 for a reward model, for objectives without a reference, for adapters
    PairRows(Scored(name='reference', pairs=pairs, by=parent))     adds a column: what the parent makes of each side

What a reference is, `align.reference` says.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import jax
import numpy as np
from jax.sharding import Mesh

from align.dpo import Preference
from align.pair_tokens import PairTokens
from align.reference import Opened, Reference, check_reference, lots
from model.errors import DataError
from train.artifact import Store
from train.build import Built
from train.data.pipeline import Batches, Placement
from train.data.shuffle import key, permutation
from train.data.visits import RECORDS, Row
from train.data.vocabulary import Vocabulary
from train.run import Run
from train.types import Batch, Evaluator, Form, LossFn, Mean, Params, Setting


@dataclass(frozen=True, kw_only=True)
class Scored(Reference):
  """Pairs with the log-probs that a run's parameters give the answers of their sides."""

  pairs: PairTokens

  @property
  def answers(self) -> PairTokens:
    return self.pairs


class PairVisits:
  """The endless order of pairs, or of other rows with two sides: row g is a function of the seed and g, each once an epoch."""

  def __init__(self, pairs: Opened, length: int, seed: int, noun: str = 'pair'):
    self.pairs, self.length, self.seed, self.noun = pairs, length, seed, noun
    self.definition: dict[str, Any] = {'length': length, 'seed': seed, f'{noun}s': pairs.sha256}
    self._order = lru_cache(maxsize=2)(lambda epoch: permutation(key(seed, f'{noun}s', epoch), len(pairs)))

  @property
  def rows(self) -> int:
    return len(self.pairs)

  def __getitem__(self, number: int) -> Row:
    """As the split has it; record i32[]: the number, modulo 2^31."""
    return self.pairs.row(self._pair(number), self.length) | {'record': np.asarray(number % RECORDS, np.int32)}

  def describe(self, number: int) -> str:
    """Where a row comes from, for a person."""
    return f'{self.noun} {self._pair(number)} of epoch {number // self.rows}: {self.pairs.describe(self._pair(number))}'

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
    if isinstance(run.objective, Preference) and run.objective.referred:
      check_reference(run, self.pairs)

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

  def evaluator(self, setting: Setting, rows: int) -> Evaluator:
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
