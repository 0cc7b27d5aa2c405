"""Figures are what they are defined as, and their intervals hold as often as they say; pairs know more than two alone."""

import numpy as np
import pytest

from train.eval import classes, resampling
from train.eval.figures import Classified, Mean
from train.eval.resampling import interval, paired, resampled
from train.eval.task import FIGURES, LOWER


def test_ratios_are_of_sums_and_means_leave_out_what_is_no_number():
  columns = {'nll': np.array([2.0, 30.0]), 'tokens': np.array([1, 9]), 'bytes': np.array([4, 12])}
  assert FIGURES['loss'](columns) == pytest.approx(3.2)                                  # and not the mean of 2 and 3.33
  assert FIGURES['perplexity'](columns) == pytest.approx(np.exp(3.2))
  assert FIGURES['bits_per_byte'](columns) == pytest.approx(32 / 16 / np.log(2))
  assert Mean('x')({'x': np.array([1.0, np.nan, 0.0])}) == 0.5
  assert np.isnan(Mean('x')({'x': np.array([np.nan])}))
  assert FIGURES.keys() >= LOWER and all(FIGURES[name].needs for name in FIGURES)


@pytest.mark.parametrize('name', ['weighted_f1', 'macro_f1', 'accuracy'])
def test_a_stack_of_resamples_says_what_each_says_alone(name):
  """A resample is the same as a set in which items stand so many times; classes of no item count as little as there."""
  random = np.random.default_rng(1)
  columns = {'truth': random.integers(0, 5, 40).astype(np.int32), 'said': random.integers(-1, 6, 40).astype(np.int32) * 2}
  counts_RN = np.concatenate([np.ones((1, 40)), random.multinomial(40, [1 / 40] * 40, 6)]).astype(float)
  counts_RN[-1, columns['truth'] < 4] = 0
  found = FIGURES[name].of(columns, counts_RN)
  for value, counts_N in zip(found, counts_RN.astype(int)):
    items = np.repeat(np.arange(40), counts_N)
    assert value == pytest.approx(FIGURES[name]({'truth': columns['truth'][items] + 2, 'said': columns['said'][items] + 2}))
  assert FIGURES[name](columns) == pytest.approx(found[0]) and isinstance(FIGURES[name], Classified)


def test_the_interval_of_a_mean_is_what_theory_says_and_covers_as_often():
  random = np.random.default_rng(2)
  found = [interval(Mean('x'), {'x': random.normal(3.0, 2.0, 100)}) for _ in range(100)]
  widths = [each.high - each.low for each in found]
  assert np.mean(widths) == pytest.approx(2 * 1.96 * 2 / 10, rel=0.05)
  assert 88 <= sum(each.low < 3.0 < each.high for each in found) <= 99
  assert all(each.low < each.value < each.high for each in found)


@pytest.mark.parametrize('won, wanted', [(0, (0.0, 0.2059)), (16, (0.7941, 1.0))])
def test_a_share_of_none_or_of_all_has_the_exact_interval(won, wanted):
  """Clopper and Pearson's for 16 items, where resamples would all be alike; items that have no number do not count."""
  values = np.array([float(won > 0)] * 16 + [np.nan])
  truth = np.arange(16) % 2
  for found in (interval(FIGURES['exact_match'], {'exact': values}),
                interval(FIGURES['accuracy'], {'truth': truth, 'said': truth if won else 1 - truth})):
    assert found.value == won / 16 and found[1:] == pytest.approx(wanted, abs=1e-4)


def test_one_miss_has_the_bootstrap_and_so_has_what_is_no_share():
  values = np.arange(16.0) > 0
  assert interval(Mean('x'), {'x': values})[1:] == tuple(np.quantile(resampled(Mean('x'), {'x': values}), (0.025, 0.975)))
  assert interval(FIGURES['loss'], {'nll': np.zeros(16), 'tokens': np.ones(16)}) == (0, 0, 0)
  assert interval(Mean('x'), {'x': np.full(16, 2.0)}) == (2, 2, 2)


def test_resamples_are_the_same_each_time_and_of_their_number_alone():
  columns = {'x': np.arange(37.0)}
  first = resampled(Mean('x'), columns)
  assert len(first) == 2000 and np.array_equal(first, resampled(Mean('x'), columns))
  assert not np.array_equal(first, resampled(Mean('x'), columns, seed=1))
  np.testing.assert_allclose(resampled(Mean('x'), {'x': np.arange(37.0) + 1}), first + 1)
  assert all((counts_RN.sum(1) == 37).all() for counts_RN in resampling.counts(37))


def test_a_run_compared_with_itself_differs_by_nothing():
  columns = {'x': np.random.default_rng(3).random(50)}
  assert paired(Mean('x'), columns, columns, lower=False) == (0.0, 0.0, 0.0, 0.5)


def test_pairs_on_which_both_find_the_same_items_hard_have_narrower_intervals():
  random = np.random.default_rng(4)
  hard = random.normal(size=200)
  one, other = {'x': hard + 0.1 * random.normal(size=200)}, {'x': hard + 0.05 + 0.1 * random.normal(size=200)}
  alone = {'x': random.permutation(other['x'])}                          # the same figure, of unrelated items
  together, apart = (paired(Mean('x'), one, each, lower=False) for each in (other, alone))
  assert together.difference == pytest.approx(apart.difference)
  assert together.high - together.low < 0.2 * (apart.high - apart.low)
  assert together.low > 0 > apart.low and together.better > 0.99 > apart.better
  less = paired(Mean('x'), one, other, lower=True)
  assert less[:3] == together[:3] and less.better == pytest.approx(1 - together.better)


def test_where_nothing_was_measured_nothing_is_claimed():
  none = {'x': np.full(5, np.nan)}
  assert np.isnan(interval(Mean('x'), none)).all() and np.isnan(paired(Mean('x'), none, none, lower=False)).all()
  assert np.isnan(classes.accuracy(np.zeros((1, 2, 2)))).all()
