"""Known answers and laws of advantages, averages and the pull towards the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align import kl
from align.advantages import (
  gae,
  grouped,
  kto_reference,
  leave_one_out,
  token_rewards,
  uninformative,
  whiten,
)
from align.average import PerAnswer, PerConstant, PerToken
from model.errors import ConfigError

REWARDS = jnp.array([[0.0, 0.0, 0.0, 0.7, 5.0]])
VALUES = jnp.array([[0.1, 0.2, 0.3, 0.4, 9.0]])
MASK = jnp.array([[1, 1, 1, 1, 0]])
A = [0.542463, 0.465750, 0.385000, 0.300000]
EIGHT = jnp.array([1.0, 0, 0, 1, 0, 0, 0, 0])


def looped(rewards, values, mask, gamma, decay):
  """The definition, token by token, over the tokens that count."""
  out = np.zeros(rewards.shape)
  for b in range(len(rewards)):
    places = np.flatnonzero(mask[b])
    for i, t in enumerate(places):
      for k, s in enumerate(places[i:]):
        after = values[b, places[i + k + 1]] if i + k + 1 < len(places) else 0.0
        out[b, t] += (gamma * decay) ** k * (rewards[b, s] + gamma * after - values[b, s])
  return out


class TestGAE:

  def test_known_answer_whatever_lies_in_the_padding(self):
    found = gae(REWARDS, VALUES, MASK)
    np.testing.assert_allclose(found.advantages_BT[0], [*A, 0], rtol=1e-5)
    np.testing.assert_allclose(found.returns_BT[0], [0.642463, 0.665750, 0.685, 0.7, 0], rtol=1e-5)

  def test_a_score_below_one_is_not_truncated(self):
    """Integer ids once gave their type to rewards, and turned every advantage around."""
    scores = token_rewards(jnp.array([0.7]), jnp.zeros((1, 5), jnp.int32), MASK, beta=0.1)
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(gae(scores, VALUES, MASK).advantages_BT[0, :4], A, rtol=1e-5)
    wrong = gae(scores.astype(jnp.int32), VALUES, MASK).advantages_BT[0, :4]
    np.testing.assert_allclose(wrong, [-0.0577, -0.166, -0.28, -0.4], rtol=1e-2)

  def test_equals_the_definition_with_gaps_inside(self):
    rng = np.random.default_rng(0)
    rewards, values, mask = rng.normal(size=(4, 9)), rng.normal(size=(4, 9)), rng.random((4, 9)) < 0.6
    mask[3] = False
    found = gae(*map(jnp.asarray, (rewards, values, mask)), gamma=0.9, decay=0.8)
    np.testing.assert_allclose(found.advantages_BT, looped(rewards, values, mask, 0.9, 0.8), rtol=1e-5, atol=1e-6)

  def test_a_perfect_critic_leaves_nothing(self):
    rewards = jnp.array([[0.0, 1.0, 2.0]])
    np.testing.assert_allclose(gae(rewards, jnp.array([[3.0, 3.0, 2.0]]), jnp.ones((1, 3))).advantages_BT, 0, atol=1e-6)


class TestRewards:

  def test_the_score_lies_at_the_last_token_of_the_answer(self):
    """Not on the slot after it, and nowhere where there is no answer."""
    mask = jnp.array([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
    found = token_rewards(jnp.array([1.0, 2.0, 3.0]), jnp.full((3, 4), 0.5), mask, beta=0.2)
    np.testing.assert_allclose(found, [[-0.1, 0.9, 0, 0], [0, -0.1, -0.1, 1.9], [0, 0, 0, 0]], rtol=1e-6)

  def test_whitening(self):
    x, mask = jnp.array([[*A, 99.0]]), MASK
    np.testing.assert_allclose(whiten(x, mask)[0], [1.318480, 0.469668, -0.423818, -1.364330, 0], rtol=1e-4)
    np.testing.assert_allclose(whiten(x, mask, deviation='sample')[0], [1.141837, 0.406745, -0.367037, -1.181544, 0], rtol=1e-4)
    np.testing.assert_allclose(whiten(x, mask, shift=False)[0, :4].mean(), np.mean(A), rtol=1e-5)

  def test_a_single_token_is_whitened_to_zero(self):
    for deviation in ('sample', 'population'):
      np.testing.assert_array_equal(whiten(jnp.array([3.0, 4.0]), jnp.array([1, 0]), deviation=deviation), 0)

  @pytest.mark.parametrize('value', [0.1, 1 / 3, 0.7, 123.4])
  def test_equal_numbers_are_whitened_to_zero(self, value):
    """Their mean is not always they themselves in float32: what is left was divided by its like, and came out near 1."""
    for count in (7, 37, 1000):
      x = jnp.full((2, count), value)
      mask = jnp.arange(count) < jnp.array([[count], [3]])
      np.testing.assert_array_equal(whiten(x, mask), 0)
      np.testing.assert_allclose(whiten(x, mask, shift=False), jnp.where(mask, value, 0), rtol=1e-6)

  def test_a_batch_that_is_rewarded_alike_teaches_a_policy_nothing(self):
    """A critic that says 0, as all do at first, and no discount: each token has the same advantage."""
    mask = jnp.arange(9) < jnp.array([[9], [4], [1], [7]])
    found = gae(token_rewards(jnp.full(4, 0.1), jnp.zeros((4, 9)), mask, beta=0.1), jnp.zeros((4, 9)), mask, decay=1.0)
    np.testing.assert_allclose(found.advantages_BT, jnp.where(mask, 0.1, 0), rtol=1e-6)
    np.testing.assert_array_equal(whiten(found.advantages_BT, mask), 0)

  def test_what_hardly_differs_is_still_whitened(self):
    np.testing.assert_allclose(whiten(jnp.array([1.0, 1.001]), jnp.ones(2)), [-1, 1], rtol=1e-3)


class TestGroups:

  @pytest.mark.parametrize('deviation, right, wrong', [
    ('population', 1.731651, -0.577217), ('sample', 1.619835, -0.539945), ('none', 0.75, -0.25)])
  def test_known_answers(self, deviation, right, wrong):
    np.testing.assert_allclose(grouped(EIGHT, 8, deviation=deviation), np.where(EIGHT, right, wrong), rtol=1e-5)

  def test_leave_one_out(self):
    np.testing.assert_allclose(leave_one_out(EIGHT, 8), np.where(EIGHT, 0.857143, -0.285714), rtol=1e-5)
    np.testing.assert_array_equal(leave_one_out(jnp.array([3.0, 4.0]), 1), 0)

  def test_groups_do_not_touch_each_other(self):
    rewards = jnp.arange(12.0) ** 2
    order = np.array([8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7])
    for form in (lambda r: grouped(r, 4), lambda r: leave_one_out(r, 4), lambda r: uninformative(r, 4)):
      np.testing.assert_array_equal(form(rewards)[order], form(rewards[order]))

  def test_equal_rewards_teach_exactly_nothing(self):
    rewards = jnp.array([0.1] * 8 + [0.1] * 7 + [0.3])
    for deviation in ('sample', 'population', 'none'):
      np.testing.assert_array_equal(grouped(rewards, 8, deviation=deviation)[:8], 0)
    np.testing.assert_array_equal(leave_one_out(rewards, 8)[:8], 0)
    np.testing.assert_array_equal(uninformative(rewards, 8), [True] * 8 + [False] * 8)

  def test_a_group_that_is_not_whole_is_refused(self):
    with pytest.raises(ValueError, match='10 answers are no whole groups of 4'):
      grouped(jnp.zeros(10), 4)


class TestAverages:
  LOSS = jnp.array([[1.0, 3.0, 5.0], [2.0, 100.0, jnp.nan], [jnp.nan, jnp.nan, jnp.nan]])
  MASK = jnp.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]])

  @pytest.mark.parametrize('average, expected', [(PerToken(), 11 / 4), (PerAnswer(), (3 + 2) / 2), (PerConstant(10), 11 / 20)])
  def test_the_mean_is_over_tokens_over_answers_or_by_a_constant(self, average, expected):
    np.testing.assert_allclose(average(self.LOSS, self.MASK).value(), expected, rtol=1e-6)

  @pytest.mark.parametrize('average', [PerToken(), PerAnswer(), PerConstant(7)])
  def test_parts_of_a_batch_add_up(self, average):
    rng = np.random.default_rng(0)
    loss, mask = jnp.asarray(rng.normal(size=(8, 6))), jnp.asarray(rng.random((8, 6)) < 0.5)
    whole = average(loss, mask)
    for size in (1, 2, 4):
      parts = [average(loss[i:i + size], mask[i:i + size]) for i in range(0, 8, size)]
      total = jax.tree.map(lambda *x: sum(x), *parts)
      np.testing.assert_allclose(total.value(), whole.value(), rtol=1e-5)

  def test_an_empty_batch_is_zero_and_no_nan(self):
    for average in (PerToken(), PerAnswer(), PerConstant(3)):
      assert average(self.LOSS[2:], self.MASK[2:]).value() == 0
    with pytest.raises(ConfigError):
      PerConstant(0)


class TestKL:

  def test_known_answers(self):
    lp, ref = jnp.array(-1.0), jnp.array(-1.5)
    np.testing.assert_allclose([kl.k1(lp, ref), kl.k2(lp, ref), kl.k3(lp, ref)], [0.5, 0.125, 0.106531], rtol=1e-5)

  def test_what_they_mean_and_where_they_pull(self):
    """Summed over the policy's own distribution: k1 and k3 are the KL. As losses under fixed samples, k1 pulls nowhere,
    k2 as KL(policy || reference), k3 as KL(reference || policy)."""
    theta, ref = jnp.array([0.3, -0.7, 0.1]), jax.nn.log_softmax(jnp.array([0.0, 0.4, -0.2]))
    logp = jax.nn.log_softmax(theta)
    p = jnp.exp(logp)
    true = (p * (logp - ref)).sum()
    for form in (kl.k1, kl.k3):
      np.testing.assert_allclose((p * form(logp, ref)).sum(), true, rtol=1e-5)

    def pull(form):
      return jax.grad(lambda theta: (p * form(jax.nn.log_softmax(theta), ref)).sum())(theta)

    forward = jax.grad(lambda theta: (jax.nn.softmax(theta) * (jax.nn.log_softmax(theta) - ref)).sum())(theta)
    backward = jax.grad(lambda theta: (jnp.exp(ref) * (ref - jax.nn.log_softmax(theta))).sum())(theta)
    np.testing.assert_allclose(pull(kl.k1), 0, atol=1e-6)
    np.testing.assert_allclose(pull(kl.k2), forward, atol=1e-6)
    np.testing.assert_allclose(pull(kl.k3), backward, atol=1e-6)

  def test_controllers(self):
    adaptive = kl.Adaptive()
    np.testing.assert_allclose([adaptive.next(0.2, 9.0, 256), adaptive.next(0.2, 3.0, 256)], [0.201024, 0.198976], rtol=1e-6)
    assert adaptive.next(0.2, 6.0, 256) == 0.2 and kl.Fixed(0.1).next(0.1, 99.0, 256) == 0.1
    with pytest.raises(ConfigError, match=r'Adaptive\.target'):
      kl.Adaptive(target=0.0)

  def test_the_reference_point_of_kto_is_never_negative(self):
    assert kto_reference(jnp.array([-3.0, 1.0])) == 0 and kto_reference(jnp.array([3.0, 1.0])) == 2
