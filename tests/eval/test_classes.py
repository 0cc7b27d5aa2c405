"""Precision, recall and F1: numbers worked out by hand, which scikit-learn 1.9.1 gives too, and laws that hold for any."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.eval.classes import confusion, per_class
from train.eval.task import FIGURES

TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
SAID = np.array([0, 0, 0, 1, 1, 1, 0, 2, 1, 2])
NAMES = ('accuracy', 'weighted_f1', 'macro_f1')
ITEMS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40).map(np.array)


def figures(truth, said) -> list[float]:
  return [FIGURES[name]({'truth': truth, 'said': said}) for name in NAMES]


def test_known_answers():
  counts = confusion(TRUTH, SAID, 5)
  assert counts.tolist() == [[3, 1, 0, 0, 0], [1, 2, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
  rows = per_class(counts, 'abcde')
  assert rows[0] == {'label': 'a', 'precision': 0.75, 'recall': 0.75, 'f1': 0.75, 'support': 4}
  assert rows[1] == {'label': 'b', 'precision': 0.5, 'recall': pytest.approx(2 / 3), 'f1': pytest.approx(4 / 7), 'support': 3}
  assert [row['f1'] for row in rows[2:]] == [0.5, 0, 0] and [row['support'] for row in rows[2:]] == [2, 1, 0]
  accuracy, weighted, macro = figures(TRUTH, SAID)
  assert accuracy == pytest.approx(0.6) and weighted == pytest.approx((4 * 0.75 + 3 * 4 / 7 + 2 * 0.5) / 10)
  assert macro == pytest.approx((0.75 + 4 / 7 + 0.5) / 4)      # d occurs and is never found; e does not occur


def test_of_no_items_nothing_is_known():
  none = np.zeros(0, np.int32)
  assert np.isnan(figures(none, none)).all()
  assert confusion(none, none, 2).tolist() == [[0, 0], [0, 0]]


@settings(max_examples=200, deadline=None)
@given(ITEMS)
def test_laws(items):
  truth, said = items.T
  counts = confusion(truth, said, 5)
  rows = per_class(counts, 'abcde')
  assert counts.sum() == len(items) and (counts.sum(1) == np.bincount(truth, minlength=5)).all()
  recall = sum(row['recall'] * row['support'] for row in rows) / len(items)
  accuracy, weighted, _ = figures(truth, said)
  assert accuracy == pytest.approx(recall) == pytest.approx(counts.trace() / len(items))
  assert weighted == pytest.approx(sum(row['f1'] * row['support'] for row in rows) / len(items))
  names = np.array([3, 0, 4, 1, 2])
  assert figures(truth, said) == pytest.approx(figures(names[truth], names[said]))
  assert figures(truth, truth) == pytest.approx([1, 1, 1])
