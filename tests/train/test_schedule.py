"""Schedules: where they start, where they stand still and where they end."""

import jax
import numpy as np
import pytest

from model.errors import ConfigError
from train.schedule import WSD, Constant, Cosine, Linear, warms_up

STEPS = 100


def curve(schedule):
  factor = schedule(STEPS)
  return np.array([float(factor(step)) for step in range(STEPS)])


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


def test_one_step_is_enough():
  assert np.isfinite(float(Cosine(0)(1)(0)))


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
