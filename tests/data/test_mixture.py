"""Each source has its share of the rows at every moment, and goes through epochs of its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ConfigError, DataError
from tests.data.fake_corpus import FakeCorpus, made, texts
from train.artifact import Store
from train.data.mixture import FINEST, Mixture, Schedule, Share, quotas
from train.data.rows import Rows
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary

WEIGHTS = st.lists(st.floats(0, 9).map(lambda x: round(x, 2)) | st.integers(0, 50), min_size=1, max_size=6).filter(any)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS)
def test_every_source_is_less_than_a_row_from_its_share_at_every_moment(weights):
  schedule = Schedule(tuple(weights))
  share = schedule.quota / schedule.cycle
  assert share == pytest.approx(np.array(weights) / sum(weights), abs=1 / FINEST)
  owners = np.array([schedule.locate(row)[0] for row in range(min(2 * schedule.cycle, 2000))])
  so_far = np.cumsum(owners[:, None] == np.arange(len(weights)), axis=0)
  ideal = np.arange(1, len(owners) + 1)[:, None] * share
  assert abs(so_far - ideal).max() < 1


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.integers(0, 10**12))
def test_any_row_can_be_asked_for(weights, row):
  """Each source's rows are numbered without a gap, wherever one begins."""
  schedule = Schedule(tuple(weights))
  before = schedule.counts(row)
  source, rank = schedule.locate(row)
  assert rank == before[source]
  assert (schedule.counts(row + 1) - before).tolist() == [int(i == source) for i in range(len(weights))]
  assert before.sum() == row


def test_three_to_one_worked_by_hand():
  """Rows of the first source are due before places 2, 3 and 4 of the cycle, that of the second before 4."""
  schedule = Schedule((3.0, 1.0))
  assert [schedule.locate(row) for row in range(8)] == [(0, 0), (0, 1), (0, 2), (1, 0), (0, 3), (0, 4), (0, 5), (1, 1)]


@pytest.mark.parametrize('weights, wanted', [
  ((0.7, 0.2, 0.1), [7, 2, 1]), ((1, 1), [1, 1]), ((0.0, 2.5), [0, 1]), ((0.1, 0.3), [1, 3]), ((1e-4, 1), [1, 10000])])
def test_weights_as_whole_numbers(weights, wanted):
  assert quotas(weights) == wanted


def test_weights_that_are_too_fine_keep_every_source():
  assert quotas((2_550_001, 1_234_567, 3)) == [44157, 21378, 1]
  assert quotas((1 / 3, 2 / 3)) == [1, 2] and sum(quotas((1 / 3, 2 / 3, 1 / 7))) == FINEST


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """Tokens of two corpora in one vocabulary."""
  root = tmp_path_factory.mktemp('runs')
  first, store = made(root, count=30)
  corpus = FakeCorpus(name='other', train=texts(12, 5), heldout=texts(3, 6))
  second = Tokens(name='second', corpus=corpus, vocabulary=first.vocabulary)
  store.make(second)
  return first, second, store


def test_a_mixture_of_one_is_that_one(two):
  first, _, store = two
  alone, mixed = (Rows(tokens, 16).visits(store) for tokens in (first, Mixture((Share(first, 0.3),))))
  assert all((alone[i]['tokens'] == mixed[i]['tokens']).all() for i in range(50))


def test_a_source_without_weight_is_not_even_opened(two):
  first, second, store = two
  mixture = Mixture((Share(first, 1.0), Share(second, 0.0)))
  assert len(Rows(mixture, 16).visits(store).parts) == 1


def test_sources_repeat_in_their_own_epochs(two):
  first, second, store = two
  visits = Rows(Mixture((Share(first, 1.0), Share(second, 1.0))), 16).visits(store)
  rows = visits.parts[1].rows
  mine = [row for row in range(4 * rows) if visits.schedule.locate(row)[0] == 1]
  for epoch in range(2):
    found = [visits.parts[1].place(visits.schedule.locate(row)[1]) for row in mine[epoch * rows:(epoch + 1) * rows]]
    assert sorted(found) == [(epoch, row) for row in range(rows)]


def test_rows_come_from_the_source_that_is_named(two):
  first, _, store = two
  visits = Rows(Mixture((Share(first, 1.0, source='odd'), Share(first, 3.0, source='even'))), 16).visits(store)
  for row in range(12):
    named = visits.describe(row)
    assert ('/odd: odd:' in named) == (visits.schedule.locate(row)[0] == 0) == ('even:' not in named)


def test_shares_that_cannot_be(two):
  first, second, store = two
  with pytest.raises(ConfigError, match=r'second has weight -1'):
    Share(second, -1.0)
  with pytest.raises(ConfigError, match=r'mixture\.negative'):
    Share(first, float('nan'))
  with pytest.raises(ConfigError, match=r'mixture\.all-zero'):
    Mixture((Share(first, 0.0), Share(second, 0.0)))
  with pytest.raises(ConfigError, match=r'mixture\.all-zero'):
    Mixture(())
  with pytest.raises(ConfigError, match=r'mixture\.twice'):
    Mixture((Share(first, 1.0), Share(first, 2.0)))
  with pytest.raises(DataError, match=r"mixture\.unknown-source.*'latin'"):
    Rows(Mixture((Share(first, 1.0, source='latin'),)), 16).visits(store)


def test_tokenizers_must_agree(two, tmp_path):
  first, _, store = two
  vocabulary = Vocabulary(name='small', corpus=first.corpus, size=320)
  other = Tokens(name='other', corpus=first.corpus, vocabulary=vocabulary)
  Store(store.root).make(other)
  with pytest.raises(DataError, match=r'mixture\.tokenizers'):
    Rows(Mixture((Share(first, 1.0), Share(other, 1.0))), 16).visits(store)
