"""Figures (metrics) of a task as functions of its items and their counts, so that a hundred resamples are one product.

Letters: N items, R resamples, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from train.eval.classes import accuracy, share

Columns = Mapping[str, np.ndarray]       # [N] each


class Figure(ABC):
  """A number that sums up the items of a task, from the columns that it `needs`."""

  @property
  @abstractmethod
  def needs(self) -> tuple[str, ...]:
    """The names of the columns."""

  def __call__(self, columns: Columns) -> float:
    """The figure of all items, each counted once."""
    items = len(next(iter(columns.values())))
    return float(self.of(columns, np.ones((1, items)))[0])

  @abstractmethod
  def of(self, columns: Columns, counts_RN: np.ndarray) -> np.ndarray:
    """f64[R]: the figure where item n counts so many times; NaN where nothing counts."""

  def averaged(self, columns: Columns) -> np.ndarray:
    """The numbers of items, f64, of which the figure is the plain mean; none where it is another figure."""
    return np.zeros(0)


@dataclass(frozen=True)
class Ratio(Figure):
  """The sum of one column over the sum of another, times a unit: never a mean of means."""

  over: str
  under: str
  unit: float = 1.0

  @property
  def needs(self) -> tuple[str, ...]:
    return self.over, self.under

  def of(self, columns: Columns, counts_RN: np.ndarray) -> np.ndarray:
    return self.unit * share(counts_RN @ columns[self.over], counts_RN @ columns[self.under])


@dataclass(frozen=True)
class Perplexity(Figure):
  """exp of nats a token: from the columns 'nll' and 'tokens'."""

  @property
  def needs(self) -> tuple[str, ...]:
    return 'nll', 'tokens'

  def of(self, columns: Columns, counts_RN: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(Ratio('nll', 'tokens').of(columns, counts_RN), 700))


@dataclass(frozen=True)
class Mean(Figure):
  """The mean of a column over the items that have a number there."""

  column: str

  @property
  def needs(self) -> tuple[str, ...]:
    return (self.column,)

  def averaged(self, columns: Columns) -> np.ndarray:
    values_N = np.asarray(columns[self.column], np.float64)
    return values_N[np.isfinite(values_N)]

  def of(self, columns: Columns, counts_RN: np.ndarray) -> np.ndarray:
    values_N = np.asarray(columns[self.column], np.float64)
    there_N = np.isfinite(values_N)
    return share(counts_RN @ np.where(there_N, values_N, 0.0), counts_RN @ there_N.astype(np.float64))


@dataclass(frozen=True)
class Classified(Figure):
  """A function `says` of confusion matrices f64[R, C, C], truth by row, on the columns 'truth' and 'said'."""

  says: Callable[[np.ndarray], np.ndarray]

  @property
  def needs(self) -> tuple[str, ...]:
    return 'truth', 'said'

  def of(self, columns: Columns, counts_RN: np.ndarray) -> np.ndarray:
    known, codes = np.unique(np.concatenate([columns['truth'], columns['said']]), return_inverse=True)
    classes, (truth_N, said_N) = len(known), np.split(codes, 2)
    order_N = np.argsort(truth_N * classes + said_N, kind='stable')
    pairs, begins = np.unique((truth_N * classes + said_N)[order_N], return_index=True)
    confusion_RP = np.zeros((len(counts_RN), classes * classes))
    confusion_RP[:, pairs] = np.add.reduceat(counts_RN[:, order_N], begins, axis=1)
    return self.says(confusion_RP.reshape(len(counts_RN), classes, classes))


@dataclass(frozen=True)
class Accuracy(Classified):
  """The share of items of which is said what is true."""

  says: Callable[[np.ndarray], np.ndarray] = accuracy

  def averaged(self, columns: Columns) -> np.ndarray:
    return (columns['truth'] == columns['said']).astype(np.float64)
