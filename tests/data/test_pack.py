"""Every token after a document's first is a target exactly once an epoch, and a segment holds one document."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.pack import Span, Stream, StreamPlan, Whole, fill
from train.data.shuffle import draws, fractions, key, permutation

LENGTHS = st.lists(st.integers(2, 40), min_size=1, max_size=30)


def targets(plan, epoch) -> Counter:
  """How often each (document, place) of an epoch is a target: not the first of its row's, nor of its segment."""
  return Counter((span.document, place) for row in range(plan.rows) for span in plan.spans(epoch, row)
                 for place in range(span.start + 1, span.stop))


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 17), st.sampled_from([Stream(), Whole()]), st.integers(0, 3))
def test_each_token_is_a_target_exactly_once_an_epoch(lengths, length, packing, epoch):
  plan = packing.plan(np.array(lengths), length, seed=7)
  wanted = {(document, place): 1 for document, size in enumerate(lengths) for place in range(1, size)}
  assert targets(plan, epoch) == wanted
  assert all(0 < sum(s.stop - s.start for s in plan.spans(epoch, row)) <= length + 1 for row in range(plan.rows))


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 17))
def test_a_stream_has_no_padding_but_in_its_last_row(lengths, length):
  plan = Stream().plan(np.array(lengths), length, seed=0)
  used = [sum(s.stop - s.start for s in plan.spans(0, row)) for row in range(plan.rows)]
  assert all(size == length + 1 for size in used[:-1])
  assert plan.rows == -(-(sum(lengths) - 1) // length)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 60))
def test_whole_documents_are_not_cut(lengths, length):
  plan = Whole().plan(np.array(lengths), length, seed=0)
  spans = [span for row in range(plan.rows) for span in plan.spans(0, row)]
  for document, size in enumerate(lengths):
    if size <= length + 1:
      assert spans.count(Span(document, 0, size)) == 1


def test_best_fit_is_tight():
  """7 + 3, 6 + 4 and 5 + 5 fill three rows of ten; the best fit finds it, in any order of the documents."""
  plan = Whole().plan(np.array([5, 3, 6, 5, 4, 7]), 9, seed=0)
  assert plan.rows == 3


def test_best_fit_wastes_little_of_many():
  lengths = (draws(1, 50_000) % np.uint64(600)).astype(np.int64) + 2
  assert lengths.sum() / (Whole().plan(lengths, 1024, seed=0).rows * 1025) > 0.99


def test_a_stream_worked_by_hand(monkeypatch):
  """Documents of 3, 2 and 4 tokens in the order 2, 0, 1, in rows of 4 + 1: the stream is CCCC AAA BB."""
  monkeypatch.setattr('train.data.pack.permutation', lambda key, count: np.array([2, 0, 1]))
  plan = StreamPlan(np.array([3, 2, 4]), 4, seed=0)
  assert plan.rows == 2
  assert plan.spans(0, 0) == [Span(2, 0, 4), Span(0, 0, 1)]
  assert plan.spans(0, 1) == [Span(0, 0, 3), Span(1, 0, 2)]
  ids = np.array([1, 10, 11, 1, 20, 1, 30, 31, 32], np.uint16)
  row = fill(plan.spans(0, 0), ids, np.array([0, 3, 5]), 4)
  assert row['tokens'].tolist() == [1, 30, 31, 32, 1] and row['segments'].tolist() == [1, 1, 1, 1, 2]
  row = fill(plan.spans(0, 1)[1:], ids, np.array([0, 3, 5]), 4)
  assert row['tokens'].tolist() == [1, 20, 0, 0, 0] and row['segments'].tolist() == [1, 1, 0, 0, 0]


def test_epochs_differ_and_come_again():
  lengths = np.full(50, 7)
  plan, again = Stream().plan(lengths, 16, seed=3), Stream().plan(lengths, 16, seed=3)
  assert plan.spans(0, 5) != plan.spans(1, 5)
  assert [plan.spans(e, 5) for e in (2, 0, 1)] == [again.spans(e, 5) for e in (2, 0, 1)]
  assert plan.spans(0, 5) != Stream().plan(lengths, 16, seed=4).spans(0, 5)


@pytest.mark.parametrize('count', [0, 1, 2, 1000])
def test_a_permutation_holds_each_number_once(count):
  assert sorted(permutation(key(1, 'a'), count)) == list(range(count))


def test_chance_is_the_published_generator_and_stays_so():
  """splitmix64 from seed 1234567 begins with these numbers (the reference implementation's)."""
  assert draws(1234567, 3).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
  assert permutation(key(0, 'rows', 0), 6).tolist() == permutation(key(0, 'rows', 0), 6).tolist()
  assert key(0, 'rows', 0) != key(0, 'rows', 1)


def test_fractions_are_even():
  found = fractions(key(5), 20_000)
  assert found.min() >= 0 and found.max() < 1
  assert np.histogram(found, 10, (0, 1))[0].tolist() == pytest.approx([2000] * 10, abs=5 * 42)
