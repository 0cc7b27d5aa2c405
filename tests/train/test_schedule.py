"""Schedules: where they start, where they stand still and where they end."""

import jax
import numpy as np
import pytest

from model.errors import ConfigError
from train.schedule import WSD, Constant, Cosine, Linear, warms_up

STEPS = 100


def curve(schedule, steps=STEPS):
  factor = schedule(steps)
  return np.array([float(factor(step)) for step in range(steps)])


@pytest.mark.parametrize('schedule', [Constant(10), Cosine(10, floor=0.1), Linear(10, floor=0.05), WSD(10, decay=0.3)])
def test_warms_up_from_above_zero_to_one_and_never_leaves_the_unit_interval(schedule):
  factors = curve(schedule)
  assert 0 < factors[0] < 0.1
  assert np.all(np.diff(factors[:11]) > 0)
  assert factors[10] == pytest.approx(1)
  assert factors.min() >= 0 and factors.max() <= 1


@pytest.mark.parametrize('schedule, end', [(Constant(), 1), (Cosine(5, 0.1), 0.1), (Linear(5, 0.02), 0.02), (WSD(5), 0)])
def test_ends_on_its_floor_at_the_last_step(schedule, end):
  assert curve(schedule)[-1] == pytest.approx(end, abs=1e-6)


def test_known_points():
  assert curve(Cosine(0, 0.0))[0] == pytest.approx(1)
  assert float(Cosine(0, 0.0)(101)(50)) == pytest.approx(0.5)
  assert float(Linear(0, 0.0)(101)(25)) == pytest.approx(0.75)
  stable = curve(WSD(0, decay=0.2))
  assert np.all(stable[:79] == 1) and stable[90] == pytest.approx(9 / 20, abs=0.01)


@pytest.mark.parametrize('schedule', [Constant(10), Cosine(10, floor=0.1), Linear(10, floor=0.05), WSD(10, decay=0.3)])
def test_a_plain_number_gives_what_the_device_computes_and_needs_none(schedule):
  factor = schedule(STEPS)
  steps = np.arange(STEPS)
  np.testing.assert_allclose(curve(schedule), jax.jit(jax.vmap(factor))(steps), rtol=1e-5, atol=1e-6)
  assert not any(isinstance(factor(step), jax.Array) for step in range(STEPS))


@pytest.mark.parametrize('steps', [1, 2, 3, 10])
@pytest.mark.parametrize('schedule', [Cosine(), Linear(), WSD(decay=0.2), WSD(decay=1.0), WSD(decay=0.01)])
def test_short_runs_begin_at_the_peak_and_end_on_the_floor_and_a_single_step_has_the_peak(schedule, steps):
  factors = curve(schedule, steps)
  assert factors[0] == 1 and (steps == 1 or factors[-1] == pytest.approx(schedule.floor, abs=1e-6))


@pytest.mark.parametrize('steps', [100, 1_000_000])
def test_a_decay_shorter_than_a_step_is_the_last_step_and_none_is_none(steps):
  ends = np.arange(steps - 3, steps)
  np.testing.assert_array_equal(WSD(decay=0.3 / steps, floor=0.25)(steps)(ends), [1, 1, 0.25])
  np.testing.assert_array_equal(jax.jit(WSD(decay=0.3 / steps, floor=0.25)(steps))(ends), [1, 1, 0.25])
  np.testing.assert_array_equal(WSD(decay=0.0)(steps)(ends), 1)


@pytest.mark.parametrize('schedule', [WSD(90, decay=0.2), WSD(50, decay=1.0), WSD(98, decay=0.5), Cosine(98), Linear(98)])
def test_a_decay_does_not_begin_before_the_peak(schedule):
  factors = curve(schedule)
  assert factors[schedule.warmup] == 1 and factors[-1] == pytest.approx(schedule.floor)
  assert np.all(np.diff(factors[:schedule.warmup + 1]) > 0) and np.all(np.diff(factors[schedule.warmup:]) < 0)


@pytest.mark.parametrize('schedule', [Constant(99), Cosine(99), Linear(99), WSD(99)])
def test_a_run_whose_last_step_is_its_first_warm_one_ends_at_the_peak(schedule):
  assert curve(schedule)[-1] == 1


def test_a_share_above_one_is_refused():
  with pytest.raises(ConfigError, match='floor = 2'):
    Cosine(floor=2)


@pytest.mark.parametrize('kind', [Constant, Cosine, Linear, WSD])
def test_a_run_that_ends_before_it_is_warm_is_refused_where_it_would_begin_and_not_where_it_is_built(kind):
  warms_up(kind(STEPS - 1), STEPS, 'r')
  assert curve(kind(STEPS // 2)).max() == pytest.approx(1)
  for warmup in (STEPS, 10 * STEPS):
    assert curve(kind(warmup)).max() < 1
    with pytest.raises(ConfigError, match=f'r: optimizer.schedule.warmup = {warmup}, steps = 100') as caught:
      warms_up(kind(warmup), STEPS, 'r')
    assert f'{curve(kind(warmup)).max():.0%} of the rates' in caught.value.why
