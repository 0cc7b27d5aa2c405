"""Policies learnt from rewards, where the optimum is known, and what clipping and averaging do to a whole batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align import losses
from align.average import PerAnswer, PerConstant, PerToken
from align.credit import FromCritic, Judged, LeaveOneOut
from align.policy import GRPO, PPO, EachToken, Forward, PerSequence
from model.errors import ConfigError
from train.objectives import Shifted

BETA = 0.5
REWARDS = jnp.array([1.0, 0.5, 0.0, -0.5, 0.2])
REFERENCE = jax.nn.log_softmax(jnp.array([0.0, 0.3, 0.6, -0.2, 0.1]))


@pytest.mark.parametrize('credit', [LeaveOneOut(), FromCritic(whiten='none')], ids=['rloo', 'ppo'])
def test_the_best_policy_of_a_bandit_is_known(credit):
  """Five answers of one token: with a price of distance the optimum is p_ref * exp(r / beta), and the algorithm finds it."""
  wanted = jax.nn.softmax(REFERENCE + REWARDS / BETA)

  @partial(jax.jit, static_argnames='steps')
  def learnt(key, steps):
    def body(carry, key):
      logits, value = carry
      chosen_B = jax.random.categorical(key, logits, shape=(512,))
      logp_B = jax.nn.log_softmax(logits)[chosen_B]
      kl_B1 = BETA * (logp_B - REFERENCE[chosen_B])[:, None]
      judged = Judged(REWARDS[chosen_B], jnp.ones((512, 1)), kl_B1, jnp.full((512, 1), value), 512)
      advantage_B1 = credit(judged)['advantage']

      def loss(logits):
        now_B1 = jax.nn.log_softmax(logits)[chosen_B][:, None]
        return losses.clipped_surrogate(now_B1, logp_B[:, None], advantage_B1).mean()

      paid = (REWARDS[chosen_B] - kl_B1[:, 0]).mean()
      return (logits - 1.0 * jax.grad(loss)(logits), value + 0.1 * (paid - value)), jax.nn.softmax(logits)

    _, found = jax.lax.scan(body, (REFERENCE, 0.0), jax.random.split(key, steps))
    return found[steps // 2:].mean(0)

  np.testing.assert_allclose(learnt(jax.random.key(0), 600), wanted, atol=0.02)


def forward_of(logp_BL, mask_BL) -> Forward:
  nothing_BL = jnp.zeros(mask_BL.shape, jnp.int32)
  return Forward(Shifted(nothing_BL, nothing_BL, nothing_BL, jnp.asarray(mask_BL, jnp.float32)), jnp.asarray(logp_BL), None, {})


def batch_of(old_BL, advantage_BL, **more):
  columns = {'logp': old_BL, 'advantage': advantage_BL, 'correction': np.ones_like(old_BL)} | more
  return {name: jnp.pad(jnp.asarray(column, jnp.float32), ((0, 0), (1, 0))) for name, column in columns.items()}


OLD, MASK = np.zeros((2, 2), np.float32), np.array([[1, 1], [1, 0]])


def test_known_answers_of_the_clipped_loss():
  """(A, ratio) = (1, 1.5) and (-1, 0.5) at 0.2 are losses of -1.2 and 0.8, and both are counted as clipped."""
  logp = np.log([[1.5, 1.5], [0.5, 7.0]]).astype(np.float32)
  loss = GRPO().loss_of(forward_of(logp, MASK), batch_of(OLD, np.array([[1, 1], [-1, 9]])))
  assert float(loss.objective.value()) == pytest.approx((-1.2 + 0.8) / 2, rel=1e-6)
  assert float(loss.metrics['clipped'].value()) == 1 and float(loss.metrics['ratio'].value()) == pytest.approx(3.5 / 3)
  higher = GRPO(high=0.4).loss_of(forward_of(logp, MASK), batch_of(OLD, np.array([[1, 1], [-1, 9]])))
  assert float(higher.objective.value()) == pytest.approx((-1.4 + 0.8) / 2, rel=1e-6)


@pytest.mark.parametrize('average, wanted', [(PerAnswer(), (-1 + 2) / 2), (PerToken(), (-1 - 1 + 2) / 3),
                                             (PerConstant(4), (-2 + 2) / 8)], ids=['answer', 'token', 'constant'])
def test_the_average_decides_whose_mean_the_loss_is(average, wanted):
  loss = GRPO(average=average).loss_of(forward_of(OLD, MASK), batch_of(OLD, np.array([[1, 1], [-2, 5]])))
  assert float(loss.objective.value()) == pytest.approx(wanted, abs=1e-6)


def test_a_correction_weighs_what_was_drawn_otherwise():
  advantage = np.array([[1, 1], [-2, 5]])
  for correction, wanted in (([[0.5, 0.5], [0.5, 0.5]], 0.0), ([[2, 2], [1, 1]], (-4 + 2) / 3)):
    batch = batch_of(OLD, advantage, correction=np.array(correction))
    loss = GRPO(average=PerToken()).loss_of(forward_of(OLD, MASK), batch)
    assert float(loss.objective.value()) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_answers_share_a_ratio_where_that_is_asked():
  """GSPO: one token moved by 0.4, the other not: both have exp(0.2)."""
  logp = np.array([[0.4, 0.0], [0.0, 0.0]], np.float32)
  for ratio, wanted in ((EachToken(), (np.exp(0.4) + 1) / 2), (PerSequence(), np.exp(0.2))):
    objective = GRPO(ratio=ratio, high=9.0, average=PerToken())
    loss = objective.loss_of(forward_of(logp, MASK), batch_of(OLD, np.array([[1, 1], [0, 0]])))
    assert -float(loss.objective.total) == pytest.approx(2 * wanted, rel=1e-5)


def test_equal_rewards_and_no_price_give_no_gradient_at_all():
  def total(logp):
    return GRPO().loss_of(forward_of(logp, MASK), batch_of(OLD, np.zeros((2, 2)))).objective.total

  np.testing.assert_array_equal(jax.grad(total)(jnp.full((2, 2), 0.3)), 0)


@pytest.mark.parametrize('make', [lambda: GRPO(beta=-1.0), lambda: GRPO(low=1.5), lambda: GRPO(cap=0.5),
                                  lambda: PPO(temperature=0.0)])
def test_settings_without_meaning_are_refused(make):
  with pytest.raises(ConfigError, match=r'config\.out-of-range'):
    make()
