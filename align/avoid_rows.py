"""What a run with `Avoid` reads: rows of tokens of which some are marked as forbidden, and with each batch their price.

    AvoidRows(Rows(marked(tokens, Patterns(...)), length=256), most=0.01)             a limit, and a multiplier that keeps it
    AvoidRows(..., multiplier=PID(proportional=10.0, integral=1.0))                   augmented Lagrangian, rho = 10
    AvoidRows(..., multiplier=Penalty(1.0))                                           a fixed penalty

The constraint is measured every so many steps under the parameters that are about to learn, on rows that stay the same, so
that it does not change with what a batch happens to hold. The multiplier is part of the position: a run that was cut off goes
on to the same bits.

Letters: B rows.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import jax
import numpy as np

from align.avoid import Avoid
from align.batch_means import Means, heldout, in_batches
from align.constraint import PID, Multiplier
from align.marks import Marked, mark
from model.errors import CheckpointError, ConfigError, DataError, demand
from model.generate import generate
from model.sampling import Sampling
from model.sharding import pin
from train.artifact import Store, digest
from train.build import Built
from train.canonical import how
from train.data.mixture import Mixture
from train.data.pipeline import Placement
from train.data.rows import Rows
from train.data.visits import Row
from train.data.vocabulary import AnyVocabulary
from train.edits import join
from train.objectives import SEEN
from train.run import Run
from train.types import Batch, Evaluator, Form, Frozen, Mean, Params, Position, Setting, Source, State

SEARCHED = 100_000        # rows among which some must have what is forbidden


@dataclass(frozen=True)
class AvoidRows:
  """Rows of marked tokens. `most` is the mean charge of a forbidden token (`Avoid.charge`) that is allowed.

  `probe` rows of training that hold such tokens are measured every `every` steps. `written` texts of the model's own are
  looked through whenever held-out rows are scored.
  """

  rows: Rows
  most: float = 0.01
  multiplier: Multiplier = PID(1.0, 0.1)
  probe: int = 32
  every: int = 5
  written: int = how(0)

  form: ClassVar[Form] = 'marked'

  def __post_init__(self):
    for name, least in (('most', 0), ('probe', 1), ('every', 1), ('written', 0)):
      demand(getattr(self, name) >= least, f'AvoidRows.{name}', getattr(self, name), f'it is {least} or more', 'raise it')
    if self.rows.masking is not None or not all(isinstance(tokens, Marked) for tokens in self.all_tokens):
      raise ConfigError('forbidden.not-marked', f'rows = {self.rows.tokens.vocabulary.name}, masking = {self.rows.masking}',
                        'all tokens must be marked, and read from left to right',
                        'use Rows(marked(tokens, content), ...) without masking')

  @property
  def all_tokens(self) -> list[Any]:
    """Those of each share."""
    tokens = self.rows.tokens
    return [share.tokens for share in tokens.shares] if isinstance(tokens, Mixture) else [tokens]

  @property
  def vocabulary(self) -> AnyVocabulary:
    return self.rows.vocabulary

  @property
  def length(self) -> int:
    return self.rows.length

  @property
  def reads(self) -> int:
    return self.rows.reads

  def check(self, run: Run) -> None:
    pass

  def holds(self, run: Run, built: Built) -> dict[str, Any]:
    return {}

  def open(self, setting: Setting) -> 'Priced':
    return Priced(self, setting)

  def probed(self, store: Store) -> list[Row]:
    """The first `probe` rows that hold forbidden tokens. Raises: DataError if there is none."""
    visits = self.rows.visits(store)
    number = min(visits.rows, SEARCHED)
    found = list(islice((row for row in map(visits.__getitem__, range(number)) if counted(row)), self.probe))
    if not found:
      raise DataError('forbidden.none', f'{number:,} rows of {self.vocabulary.name}', 'none has a forbidden token to learn '
                      'from', 'mend what is looked for, or train without it')
    return found

  def evaluator(self, setting: Setting, rows: int) -> Evaluator:
    """The means of loss and metrics over held-out rows at a price of 0; and the share of forbidden tokens in its own texts."""
    batches = [lot | {'price': np.zeros(len(lot['tokens']), np.float32)}
               for lot in self.rows.heldout(setting.store, rows).batches(setting.run.batch)]
    means = Means(setting.run.objective(setting.built.model))

    def judged(params: Params) -> dict[str, float]:
      found = heldout(means(params, batches))
      return found | ({'heldout_written': self.share(setting, params)} if self.written else {})

    return judged

  def share(self, setting: Setting, params: Params) -> float:
    """The share of forbidden tokens among those of `written` texts that the model writes without a prompt."""
    tokenizer = setting.tokenizer
    said = generate(setting.built.model, params, [[tokenizer.bos]] * self.written, max_new=self.length - 1, sampling=Sampling(),
                    key=jax.random.key(0), eos=tokenizer.eos, limit=tokenizer.size).tokens
    marks = [np.max([mark(tokens.content, tokenizer, ids) for tokens in self.all_tokens], 0) for ids in said]
    return float(sum(each.sum() for each in marks) / max(sum(map(len, said)), 1))


def counted(row: Row) -> bool:
  """Whether a row has a forbidden token that would be a target."""
  inside = (row['segments'][1:] == row['segments'][:-1]) & (row['segments'][1:] > 0)
  return bool((row['forbidden'][1:] * inside * row.get('mask', row['forbidden'])[1:]).any())


class Priced:
  """A `train.types.Source`: batches with price f32[B], and as metrics `seen/multiplier` and `seen/constraint`."""

  def __init__(self, feed: AvoidRows, setting: Setting):
    self.feed, self.frozen, self.mesh = feed, setting.frozen, setting.built.mesh
    self.source: Source = feed.rows.open(setting)
    self.place = Placement(self.mesh, setting.run.batch)
    self.lots = [self.place({name: column[self.place.rows] for name, column in lot.items()})
                 for lot in in_batches(feed.probed(setting.store), setting.run.batch)]
    self.memory, self.constraint, self.given = feed.multiplier.begin(), 0.0, 0

    objective = setting.run.objective
    assert isinstance(objective, Avoid), 'a run with these rows has this objective'

    def measured(params: Params, frozen: Frozen, lot: Batch) -> Mean:
      return jax.tree.map(pin, objective.measured(setting.built.model, join(params, frozen), lot))

    self.measured = jax.jit(measured)

  def __call__(self, state: State) -> Batch:
    """The next batch; every so many, the constraint is measured under these parameters and the price follows it."""
    batch = self.source(state)
    if self.given % self.feed.every == 0:
      self.constraint = self.measure(state.params)
      self.memory = self.feed.multiplier.next(self.memory, self.constraint - self.feed.most)
    self.given += 1
    price = self.feed.multiplier.value(self.memory)
    return batch | self.place({name: np.full(len(self.place.rows), value, np.float32) for name, value in (
      ('price', price), (f'{SEEN}multiplier', price), (f'{SEEN}constraint', self.constraint))})

  def measure(self, params: Params) -> float:
    """The mean charge of the forbidden tokens in the probed rows."""
    parts: list[Mean] = jax.device_get([self.measured(params, self.frozen, lot) for lot in self.lots])
    return sum(float(part.total) for part in parts) / sum(float(part.weight) for part in parts)

  def save(self) -> Position:
    return {'avoids': digest(self.feed), 'batches': self.source.save(), 'memory': list(self.memory),
            'constraint': self.constraint, 'given': self.given}

  def load(self, position: Position) -> None:
    """Raises: CheckpointError if the position is one of other rows, or of another limit."""
    if position.get('avoids') != digest(self.feed):
      raise CheckpointError('forbidden.other', 'the position in a checkpoint', 'it is one of other rows, or of another limit',
                            'resume with the settings of the checkpoint, or start a new run')
    self.source.load(position['batches'])
    self.memory, self.constraint, self.given = tuple(position['memory']), position['constraint'], int(position['given'])

  def describe(self, record: int) -> str:
    return self.source.describe(record)

  def close(self) -> None:
    self.source.close()
