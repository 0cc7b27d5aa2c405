"""What a model is measured on: a task, what a model gave on its items, and the figures that sum that up.

A task keeps what it found per item, so that a figure can be had again of any resample of the items, and two models be
compared item by item.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from train.artifact import Store
from train.eval import classes
from train.eval.figures import Classified, Figure, Mean, Perplexity, Ratio

if TYPE_CHECKING:
  from train.run import Parent
  from train.trained import Trained


class Taken(NamedTuple):
  """What a model gave on the items of a task: per item, so that figures can be resampled and runs compared later."""

  ids: list[str]                           # of the items, in order
  columns: dict[str, np.ndarray]           # [items] each: {'truth': i32, 'said': i32} or {'rouge_l': f64} or {'exact': f64} ...
  labels: tuple[str, ...] = ()             # what the integers of truth and said stand for
  shown: tuple[dict[str, str], ...] = ()   # a few items to read: {'question', 'answer', 'wanted'}


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
  """A value; its fields may hold artifacts, which are made before it is taken."""

  name: str

  figures: ClassVar[tuple[str, ...]]       # names in FIGURES, the first is the one that counts

  @abstractmethod
  def take(self, trained: 'Trained', store: Store) -> Taken:
    """What the model gives on each item. Raises: DataError where there is none."""

  def check(self, run: 'Parent') -> None:    # noqa: B027  most tasks ask nothing of a run
    """Returns when such a model can do it. Raises: ConfigError."""


FIGURES: dict[str, Figure] = {
  'weighted_f1': Classified(classes.weighted_f1), 'macro_f1': Classified(classes.macro_f1),
  'accuracy': Classified(classes.accuracy),
  'rouge_1': Mean('rouge_1'), 'rouge_2': Mean('rouge_2'), 'rouge_l': Mean('rouge_l'), 'lead_rouge_l': Mean('lead_rouge_l'),
  'exact_match': Mean('exact'), 'contains': Mean('contains'), 'token_f1': Mean('token_f1'), 'judged': Mean('judged'),
  'bits_per_byte': Ratio('nll', 'bytes', 1 / math.log(2)), 'perplexity': Perplexity(), 'loss': Ratio('nll', 'tokens'),
}
LOWER = frozenset({'bits_per_byte', 'perplexity', 'loss'})
"""Figures that are better when they are smaller."""
BASELINES = frozenset({'lead_rouge_l'})
"""Figures of the items alone, which are the same whoever is asked."""
