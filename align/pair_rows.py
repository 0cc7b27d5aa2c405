"""What a run on preferences (DPO and its family, reward models) reads: pairs, one a row, perhaps with a reference.

    pairs = PairTokens(...)
    PairRows(pairs)                                 for a reward model, for objectives without a reference, for adapters
    PairRows(Scored(name='reference', pairs=pairs, by=parent))     adds a column: the parent's log-probs of each side
"""

from dataclasses import dataclass
from typing import ClassVar

from align.batch_means import Means, heldout
from align.dpo import Preference
from align.pair_tokens import PairTokens
from align.reference import Reference, check_reference
from align.sided_rows import SidedRows
from train.data.pipeline import Batches
from train.run import Run
from train.types import Evaluator, Form, Setting


@dataclass(frozen=True, kw_only=True)
class Scored(Reference):
  """Pairs with a reference's log-probs of the answers of both sides."""

  pairs: PairTokens

  @property
  def answers(self) -> PairTokens:
    return self.pairs


@dataclass(frozen=True)
class PairRows(SidedRows):
  """Pairs, one a row of two sides of `length` tokens."""

  pairs: PairTokens | Scored

  form: ClassVar[Form] = 'pairs'
  noun: ClassVar = 'pair'

  @property
  def answers(self) -> PairTokens | Scored:
    return self.pairs

  def check(self, run: Run) -> None:
    """Raises: ConfigError if the objective needs a reference and it is missing, or another than the parent."""
    if isinstance(run.objective, Preference) and run.objective.referred:
      check_reference(run, self.pairs)

  def open(self, setting: Setting) -> Batches:
    return self.source(setting.store, batch=setting.run.batch, mesh=setting.built.mesh)

  def evaluator(self, setting: Setting, rows: int) -> Evaluator:
    """The means of the run's loss and metrics over held-out pairs."""
    batches, means = self.withheld(setting, rows), Means(setting.run.objective(setting.built.model))
    return lambda params: heldout(means(params, batches))
