"""An evaluation task, its results per item, and the figures (metrics) that sum them up.

Results are kept per item, so that a figure can be computed again for any resample of the items, and two models can be
compared item by item.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from train.artifact import Store
from train.eval import classes
from train.eval.figures import Accuracy, Classified, Figure, Mean, Perplexity, Ratio

if TYPE_CHECKING:
  from train.run import Parent
  from train.trained import Trained


class Taken(NamedTuple):
  """The results of a model on the items of a task."""

  ids: list[str]                           # of the items, in order
  columns: dict[str, np.ndarray]           # [items] each: {'truth': i32, 'said': i32} or {'rouge_l': f64} or {'exact': f64} ...
  labels: tuple[str, ...] = ()             # what the integers of truth and said stand for
  shown: tuple[dict[str, str], ...] = ()   # a few items to read: {'question', 'answer', 'wanted'}


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
  """The config of a task; artifacts among its fields are made first."""

  name: str

  figures: ClassVar[tuple[str, ...]]       # names in FIGURES, the first is the one that counts

  @abstractmethod
  def take(self, trained: 'Trained', store: Store) -> Taken:
    """The results of the model on each item. Raises: DataError if there are no items."""

  def check(self, run: 'Parent') -> None:    # noqa: B027  most tasks ask nothing of a run
    """Returns if the task suits the run's model. Raises: ConfigError."""


FIGURES: dict[str, Figure] = {
  'weighted_f1': Classified(classes.weighted_f1), 'macro_f1': Classified(classes.macro_f1),
  'accuracy': Accuracy(),
  'rouge_1': Mean('rouge_1'), 'rouge_2': Mean('rouge_2'), 'rouge_l': Mean('rouge_l'), 'lead_rouge_l': Mean('lead_rouge_l'),
  'exact_match': Mean('exact'), 'contains': Mean('contains'), 'token_f1': Mean('token_f1'), 'judged': Mean('judged'),
  'bits_per_byte': Ratio('nll', 'bytes', 1 / math.log(2)), 'perplexity': Perplexity(), 'loss': Ratio('nll', 'tokens'),
}
LOWER = frozenset({'bits_per_byte', 'perplexity', 'loss'})
"""Figures that are better when they are smaller."""
BASELINES = frozenset({'lead_rouge_l'})
"""Figures of the items alone, the same for every model."""
