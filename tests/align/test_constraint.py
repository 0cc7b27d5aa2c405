"""Limits: multipliers that rise while a cost is too high, never below 0, and find the price at which the limit is met."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align.constraint import PID, Dual, Limit, Multipliers, combined
from align.rewards import Length
from model.errors import ConfigError

BOTH = pytest.mark.parametrize('multiplier', [Dual(rate=0.5), PID(1.0, 0.5, 0.1)], ids=lambda each: type(each).__name__)


@BOTH
def test_it_rises_above_the_limit_and_falls_below(multiplier):
  memory = multiplier.begin()
  values = [multiplier.value(memory)]
  for excess in [1.0] * 4 + [-1.0] * 20:
    memory = multiplier.next(memory, excess)
    values.append(multiplier.value(memory))
  assert values[4] > values[0] and np.all(np.diff(values[1:5]) >= 0)
  assert values[-1] < 0.01 and min(values) >= 0                       # slack: the constraint costs nothing
  assert tuple(json.loads(json.dumps(memory))) == memory


@BOTH
def test_two_actions_whose_multiplier_is_known(multiplier):
  """Action 1 pays 1 and costs 1, action 0 pays and costs nothing; the cost may be 0.3 on average. With the entropy of the
  choice at 0.5 of the reward, the best policy takes it with p = 0.3, where 1 - m = 0.5 * log(0.3 / 0.7): m = 1.423649."""
  memory, logit = multiplier.begin(), 0.0
  for _ in range(4000):
    share = 1 / (1 + np.exp(-logit))
    memory = multiplier.next(memory, 0.05 * (share - 0.3))
    logit += 0.05 * (1 - multiplier.value(memory) - 0.5 * logit)
  assert share == pytest.approx(0.3, abs=0.01) and multiplier.value(memory) == pytest.approx(1.423649, abs=0.05)


def test_advantages_are_combined_as_in_safe_rlhf():
  reward, cost, other = np.array([1.0, -1.0]), np.array([2.0, 0.0]), np.array([0.0, 4.0])
  np.testing.assert_allclose(combined(reward, [cost, other], [0.5, 0.25]), [(1 - 1) / 1.75, (-1 - 1) / 1.75], rtol=1e-6)
  np.testing.assert_array_equal(combined(reward, [], []), reward)


def test_several_limits_are_held_apart():
  limits = (Limit('long', Length(1.0), 5.0, PID(1.0, 0.0)), Limit('short', Length(-1.0), 0.0, Dual(2.0, 0.1)))
  held = Multipliers.begin(limits)
  assert held.values(limits) == pytest.approx([0.0, 2.0])
  held = held.next(limits, [7.0, -1.0])
  assert held.values(limits) == pytest.approx([2.0, 2.0 * np.exp(-0.1)])
  assert limits[0].part().weight == 0.0


def test_the_price_of_a_cost_reaches_the_policy():
  """The gradient under the combined advantage lowers the costly answer where m is large and raises it where m is small."""
  def gain(multiplier):
    advantage = jnp.asarray(combined(np.array([0.5, -0.5]), [np.array([0.5, -0.5])], [multiplier]))
    return jax.grad(lambda logits: (jax.nn.log_softmax(logits) * advantage).sum())(jnp.zeros(2))[0]

  assert gain(0.0) > 0 > gain(3.0)


def test_settings_without_meaning_are_refused():
  for wrong in (lambda: Dual(rate=0.0), lambda: PID(proportional=-1.0)):
    with pytest.raises(ConfigError):
      wrong()
