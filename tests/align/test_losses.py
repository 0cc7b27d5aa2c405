"""Known answers and laws of the losses that learn from judgement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align import losses

LN2 = float(np.log(2))
PAIR = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]       # chosen, rejected, and the reference's
MEANS = [x / n for x, n in zip(PAIR, (5, 8, 5, 8))]


def one(x) -> float:
  return float(x[0])


@pytest.mark.parametrize('value, expected', [
  (lambda: losses.bradley_terry(jnp.array([1.3]), jnp.array([0.4])), 0.341154),
  (lambda: losses.bradley_terry(jnp.array([1.3]), jnp.array([0.4]), margin=0.5), 0.513015),
  (lambda: losses.dpo(*PAIR, beta=0.1), 0.620957),
  (lambda: losses.dpo(*PAIR, beta=0.1, smoothing=0.1), 0.635957),
  (lambda: losses.hinge(*PAIR, beta=0.1), 0.85),
  (lambda: losses.ipo(*PAIR, beta=0.1), 12.25),
  (lambda: losses.ipo(*MEANS, beta=0.1), 22.443906),
  (lambda: losses.orpo_odds(jnp.array([-2.0]), jnp.array([-1.5])), 1.042058),
  (lambda: losses.log_odds(jnp.array([-2.0])) - losses.log_odds(jnp.array([-1.5])), -0.607069),
  (lambda: losses.simpo(jnp.array([-2.0]), jnp.array([-1.5]), beta=2.0, gamma=0.5), 1.701413),
  (lambda: losses.clipped_surrogate(jnp.log(jnp.array([1.5])), jnp.zeros(1), jnp.ones(1)), -1.2),
  (lambda: losses.clipped_surrogate(jnp.log(jnp.array([0.5])), jnp.zeros(1), -jnp.ones(1)), 0.8),
  (lambda: losses.clipped_surrogate(jnp.log(jnp.array([1.5])), jnp.zeros(1), jnp.ones(1), high=0.28), -1.28),
  (lambda: losses.clipped_surrogate(jnp.log(jnp.array([9.0])), jnp.zeros(1), -jnp.ones(1)), 9.0),
  (lambda: losses.clipped_surrogate(jnp.log(jnp.array([9.0])), jnp.zeros(1), -jnp.ones(1), cap=3.0), 3.0),
  (lambda: losses.value(jnp.array([1.0]), jnp.array([0.0]), jnp.array([2.0])), 0.5 * 1.8 ** 2),
  (lambda: losses.value(jnp.array([1.0]), jnp.array([0.0]), jnp.array([2.0]), clip=None), 0.5),
  (lambda: losses.kto(jnp.array([-1.0]), jnp.array([-2.0]), jnp.array([True]), jnp.array([0.5]), beta=2.0), 0.268941),
  (lambda: losses.kto(jnp.array([-1.0]), jnp.array([-2.0]), jnp.array([False]), jnp.array([0.5]), beta=2.0,
                      undesirable=3.0), 3 * 0.731059),
  (lambda: losses.centring(jnp.array([1.0]), jnp.array([-3.0])), 4.0),
  (lambda: losses.process_reward(jnp.array([0.0]), jnp.array([1.0])), LN2),
  (lambda: losses.entropy(jnp.zeros((1, 8))), np.log(8)),
])
def test_known_answers(value, expected):
  np.testing.assert_allclose(one(value()), expected, rtol=2e-6)


def test_where_policy_and_reference_agree_a_pair_costs_ln_2():
  a, b = jnp.array([-3.0, -400.0]), jnp.array([-7.0, -1.0])
  for loss in (losses.dpo(a, b, a, b, beta=0.3), losses.dpo(a, b, a, b, beta=0.3, smoothing=0.2),
               losses.bradley_terry(a, a)):
    np.testing.assert_allclose(loss, LN2, rtol=1e-6)


PAIRWISE = {
  'bradley_terry': losses.bradley_terry,
  'dpo': lambda c, r: losses.dpo(c, r, jnp.zeros_like(c), jnp.zeros_like(c), beta=0.5),
  'ipo': lambda c, r: losses.ipo(c, r, jnp.zeros_like(c), jnp.zeros_like(c), beta=0.5),
  'hinge': lambda c, r: losses.hinge(c, r, jnp.zeros_like(c), jnp.zeros_like(c), beta=0.5),
  'simpo': lambda c, r: losses.simpo(c, r, beta=2.0, gamma=0.3),
}


@pytest.mark.parametrize('name', PAIRWISE)
def test_what_raises_the_chosen_lowers_the_rejected(name):
  """And swapping the two turns the gradient around."""
  grads = jax.grad(lambda c, r: PAIRWISE[name](c, r).sum(), (0, 1))
  c, r = jnp.array([-1.0, -2.0, -0.5]), jnp.array([-1.2, -1.7, -0.5])     # within the margin that IPO aims at
  dc, dr = grads(c, r)
  np.testing.assert_allclose(dc, -dr, rtol=1e-6)
  assert (dc < 0).all()
  back_c, back_r = grads(r, c)
  assert (back_r > 0).all() and (back_c < 0).all()


@pytest.mark.parametrize('size', [1e4, 3e37])
@pytest.mark.parametrize('name', ['bradley_terry', 'dpo', 'hinge', 'simpo'])
def test_extremes_stay_finite(name, size):
  for c, r in ((size, -size), (-size, size)):
    value, grad = jax.value_and_grad(lambda c, r=r, name=name: PAIRWISE[name](c, jnp.array([r])).sum())(jnp.array([c]))
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_a_certain_answer_has_finite_odds():
  value, grad = jax.value_and_grad(lambda c: losses.orpo_odds(c, jnp.array([-1.0])).sum())(jnp.array([0.0]))
  assert np.isfinite(value) and np.isfinite(grad).all()


def test_a_soft_label_of_a_half_pulls_nowhere_where_rewards_are_equal():
  grad = jax.grad(lambda c: losses.bradley_terry(c, jnp.array([0.7]), label=0.5).sum())(jnp.array([0.7]))
  np.testing.assert_allclose(grad, 0, atol=1e-7)
  target = jax.grad(lambda c: losses.bradley_terry(c, jnp.zeros(1), label=0.8).sum())(jnp.log(jnp.array([4.0])))
  np.testing.assert_allclose(target, 0, atol=1e-6)                  # sigmoid(ln 4) = 0.8


def test_at_the_first_inner_step_the_gradient_is_the_policy_gradient():
  """The ratio is 1, so the gradient of each token's loss is -A times that of its log-prob."""
  logp, advantage = jnp.array([[-1.0, -0.3, -2.0]]), jnp.array([[0.7, -1.4, 0.0]])
  np.testing.assert_array_equal(losses.ratio(logp, logp), 1.0)
  grad = jax.grad(lambda x: losses.clipped_surrogate(x, logp, advantage).sum())(logp)
  np.testing.assert_allclose(grad, -advantage, rtol=1e-6)


def test_clipping_stops_the_gradient_only_where_it_would_go_on_in_the_same_direction():
  old, logp = jnp.zeros(4), jnp.log(jnp.array([1.5, 1.5, 0.5, 0.5]))
  advantage = jnp.array([1.0, -1.0, 1.0, -1.0])
  grad = jax.grad(lambda x: losses.clipped_surrogate(x, old, advantage).sum())(logp)
  np.testing.assert_allclose(grad, [0.0, 1.5, -0.5, 0.0], atol=1e-6)


def test_no_gradient_reaches_what_was_noted_while_sampling():
  logp, old, advantage = jnp.array([-1.0, -2.0]), jnp.array([-1.1, -1.9]), jnp.array([1.0, -1.0])
  for grad in jax.grad(lambda old, advantage: losses.clipped_surrogate(logp, old, advantage).sum(), (0, 1))(old, advantage):
    np.testing.assert_array_equal(grad, 0)
  for grad in jax.grad(lambda old, returns: losses.value(logp, old, returns).sum(), (0, 1))(old, advantage):
    np.testing.assert_array_equal(grad, 0)


def test_a_sequence_has_one_ratio_whatever_lies_off_its_mask():
  old = jnp.array([[-1.0, -2.0, -3.0, -9.0], [-1.0, -1.0, -1.0, -1.0]])
  logp = old + jnp.array([[0.3, 0.6, 0.0, 50.0], [0.2, jnp.nan, jnp.nan, jnp.nan]])
  mask = jnp.array([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
  ratio = losses.ratio(losses.sequence_logp(logp, old, mask), old)
  np.testing.assert_allclose(ratio, np.exp([[0.3] * 4, [0.2] * 4]), rtol=1e-6)
  grad = jax.grad(lambda x: losses.sequence_logp(x, old, mask)[0, 0])(jnp.nan_to_num(logp))
  np.testing.assert_allclose(grad, [[1 / 3, 1 / 3, 1 / 3, 0], [0] * 4], rtol=1e-6)


def test_entropy_with_ids_that_cannot_be_sampled():
  value, grad = jax.value_and_grad(lambda x: losses.entropy(jnp.append(x, -jnp.inf)))(jnp.zeros(3))
  np.testing.assert_allclose(value, np.log(3), rtol=1e-6)
  np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_narrow_inputs_are_judged_in_float32():
  c, r = jnp.array([-300.0], jnp.bfloat16), jnp.array([-301.0], jnp.bfloat16)
  assert losses.dpo(c, r, c, r, beta=0.1).dtype == jnp.float32
