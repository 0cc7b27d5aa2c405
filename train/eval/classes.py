"""Metrics of classification: the confusion matrix, and accuracy, precision, recall and F1 from it.

Definitions are scikit-learn's with zero_division=0: what has nothing to divide by is 0. Averages are over the classes that
occur, in what is true or in what was said.

Figures are of R confusion matrices at once, so that resamples cost one product. Letters: N items, C classes, R matrices.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def confusion(truth_N: np.ndarray, said_N: np.ndarray, classes: int) -> np.ndarray:
  """i64[C, C]: how many items of the row's class were said to be of the column's."""
  return np.bincount(np.asarray(truth_N, np.int64) * classes + said_N, minlength=classes ** 2).reshape(classes, classes)


def per_class(confusion_CC: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
  """[{label, precision, recall, f1, support}] of each class; support counts the items that are of it."""
  hits_C, true_C, said_C = confusion_CC.diagonal(), confusion_CC.sum(1), confusion_CC.sum(0)
  columns = {'precision': ratio(hits_C, said_C), 'recall': ratio(hits_C, true_C), 'f1': ratio(2 * hits_C, true_C + said_C)}
  return [{'label': label} | {name: float(column_C[i]) for name, column_C in columns.items()} | {'support': int(true_C[i])}
          for i, label in enumerate(labels)]


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
  """above / below, f64, and 0 where that is nothing."""
  return np.where(below > 0, above / np.maximum(below, 1), 0.0)


def accuracy(confusion_RCC: np.ndarray) -> np.ndarray:
  """Share of the items that are on the diagonal, f64[R]; NaN of no items."""
  return share(np.trace(confusion_RCC, axis1=1, axis2=2), confusion_RCC.sum((1, 2)))


def weighted_f1(confusion_RCC: np.ndarray) -> np.ndarray:
  """F1 of each class, weighed by how many items are truly of it, f64[R]; NaN of no items."""
  return share((_f1(confusion_RCC) * confusion_RCC.sum(2)).sum(1), confusion_RCC.sum((1, 2)))


def macro_f1(confusion_RCC: np.ndarray) -> np.ndarray:
  """The mean F1 of the classes that occur, as truth or as answer, f64[R]; NaN of no items."""
  occurs_RC = confusion_RCC.sum(1) + confusion_RCC.sum(2) > 0
  return share((_f1(confusion_RCC) * occurs_RC).sum(1), occurs_RC.sum(1).astype(np.float64))


def _f1(confusion_RCC: np.ndarray) -> np.ndarray:
  """f64[R, C]; 0 for a class without an item."""
  return ratio(2 * np.diagonal(confusion_RCC, axis1=1, axis2=2), confusion_RCC.sum(1) + confusion_RCC.sum(2))


def share(over: np.ndarray, under: np.ndarray) -> np.ndarray:
  """over / under, f64, and NaN where that is nothing."""
  return np.divide(over, under, out=np.full(np.shape(over), np.nan), where=np.asarray(under) > 0)
