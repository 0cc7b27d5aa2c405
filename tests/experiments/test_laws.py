"""Known answers for the fits of experiments.laws, and for the building blocks of experiments.grid."""

import math

import numpy as np
import pytest

from experiments.grid import chain, grid, side_by_side, vary
from experiments.laws import PowerLaw, best_rate, fit_power_law
from model.errors import ConfigError, DataError

COMPUTE = np.geomspace(1e12, 1e18, 7)


@pytest.mark.parametrize('floor, exponent', [(1.69, 0.15), (0.0, 0.05), (3.0, 0.34), (1.0, 0.5)])
def test_a_power_law_is_found_again(floor, exponent):
  truth = PowerLaw(floor, 2.0 * 1e15**exponent, exponent, 0.0)
  law = fit_power_law(COMPUTE, truth(COMPUTE))
  assert law.spread < 1e-6
  np.testing.assert_allclose(law(np.geomspace(1e12, 1e19, 30)), truth(np.geomspace(1e12, 1e19, 30)), rtol=1e-3)
  assert law.exponent == pytest.approx(exponent, rel=0.02) and law.floor == pytest.approx(floor, abs=0.05)


def test_noise_and_one_bad_run_move_it_little():
  truth = PowerLaw(1.7, 2.0 * 1e15**0.2, 0.2, 0.0)
  noise = np.exp(0.002 * np.random.default_rng(0).standard_normal(len(COMPUTE)))
  losses = truth(COMPUTE) * noise
  losses[3] *= 1.2
  law = fit_power_law(COMPUTE, losses)
  assert law.exponent == pytest.approx(0.2, rel=0.15) and law.floor == pytest.approx(1.7, abs=0.2)


def test_the_unit_of_compute_changes_the_scale_alone():
  truth = PowerLaw(1.5, 5.0, 0.3, 0.0)
  small, large = fit_power_law([1, 10, 100, 1000], truth([1, 10, 100, 1000])), None
  large = fit_power_law([1e18, 1e19, 1e20, 1e21], truth([1, 10, 100, 1000]))
  assert small.exponent == pytest.approx(large.exponent, rel=1e-3)
  assert large.scale == pytest.approx(small.scale * 1e18**small.exponent, rel=0.05)


POOR = [([1, 2], [3, 2]), ([1, 1, 2, 2], [3, 3, 2, 2]), ([1, 2, 3], [3, math.nan, 1]), ([0, 1, 2], [3, 2, 1]),
        ([1, 2, 3], [3, 2, -1])]


@pytest.mark.parametrize('compute, loss', POOR)
def test_too_little_for_a_law_is_refused(compute, loss):
  with pytest.raises(DataError):
    fit_power_law(compute, loss)


def test_the_best_rate_is_the_vertex_of_a_parabola_in_log_rate():
  rates = np.geomspace(1e-4, 1e-1, 7)
  losses = 2 + 0.3 * (np.log(rates) - math.log(2.5e-3)) ** 2
  assert best_rate(rates, losses) == pytest.approx(2.5e-3, rel=1e-6)


def test_the_best_rate_at_an_end_or_beside_a_diverged_run_is_the_run_itself():
  assert best_rate([1, 2, 3], [1, 2, 3]) == pytest.approx(1) and best_rate([1, 2, 3], [3, 2, 1]) == pytest.approx(3)
  assert best_rate([1, 2, 3, 4], [3, 2, math.inf, math.nan]) == pytest.approx(2)


def test_the_algebra_of_sweeps():
  assert vary('a', 1, 2) == [{'a': 1}, {'a': 2}]
  assert grid(vary('a', 1, 2), vary('b', 3)) == [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
  assert [trial['b'] for trial in grid(vary('a', 1, 2), vary('b', 3, 4))] == [3, 4, 3, 4]
  assert side_by_side(vary('a', 1, 2), vary('b', 3, 4)) == [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
  assert chain(vary('a', 1), vary('b', 2)) == [{'a': 1}, {'b': 2}] and grid() == [{}]
  with pytest.raises(ConfigError, match='equally long'):
    side_by_side(vary('a', 1), vary('b', 1, 2))
  with pytest.raises(ConfigError, match='two parts'):
    grid(vary('a', 1), vary('a', 2))
