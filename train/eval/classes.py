"""How well classes are told apart: the confusion matrix, and accuracy, precision, recall and F1, which are read off it.

Definitions are scikit-learn's with zero_division=0: what has nothing to divide by is 0. Averages are over the classes that
occur, in what is true or in what was said.

Letters: N items, C classes.
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


def accuracy(truth_N: np.ndarray, said_N: np.ndarray) -> float:
  """The share of items whose class was said; NaN of no items."""
  return float(np.mean(np.equal(truth_N, said_N))) if len(truth_N) else float('nan')


def weighted_f1(truth_N: np.ndarray, said_N: np.ndarray) -> float:
  """The mean over classes of F1, each weighed by the items that are of it; NaN of no items."""
  f1_C, support_C = _f1(truth_N, said_N)
  return float((f1_C * support_C).sum() / support_C.sum()) if len(truth_N) else float('nan')


def macro_f1(truth_N: np.ndarray, said_N: np.ndarray) -> float:
  """The mean of F1 over the classes that occur; NaN of no items."""
  return float(_f1(truth_N, said_N)[0].mean()) if len(truth_N) else float('nan')


def _f1(truth_N: np.ndarray, said_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """F1 and support of each class that occurs, f64[C] and i64[C]."""
  present_C, both_2N = np.unique(np.concatenate([truth_N, said_N]), return_inverse=True)
  confusion_CC = confusion(both_2N[:len(truth_N)], both_2N[len(truth_N):], len(present_C))
  true_C = confusion_CC.sum(1)
  return ratio(2 * confusion_CC.diagonal(), true_C + confusion_CC.sum(0)), true_C
