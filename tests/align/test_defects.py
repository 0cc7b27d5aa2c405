"""Defects that were found in well-known systems for alignment, each as a law that would have caught it.

Those that have their place beside the code they concern are tested there; here are the others.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align import losses
from align.advantages import gae, grouped, kto_reference, leave_one_out, token_rewards, whiten
from align.average import PerAnswer, PerConstant, PerToken
from align.dpo import DPO, IPO, ORPO, Compared, Hinge, SimPO
from model.chat import ChatML, Message, render
from tests.model.chats import own
from tests.model.variants import made, small
from train.objectives import NextToken, shift

SCORES = np.array([0.7, -1.4, 0.2, 0.9])
MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
WHOLE = np.array([[1, 0, 2, 1], [0, 3, 1, 2], [2, 1, 0, 0], [1, 1, 4, 0]])          # whole numbers, of whatever type


@pytest.mark.parametrize('kind', [jnp.int32, jnp.bool_, jnp.bfloat16])
def test_rewards_are_in_float32_whatever_type_lies_beside_them(kind):
  """Rewards that were made in the likeness of integer ids lost all after the point: 0.7 was 0, and -1.4 was -1."""
  mask, whole, scores = jnp.asarray(MASK), jnp.asarray(WHOLE), jnp.asarray(SCORES, jnp.float32)
  plain = token_rewards(scores, whole.astype(jnp.float32), mask.astype(jnp.float32), beta=0.1)
  given = token_rewards(scores, whole, mask.astype(kind), beta=0.1)
  for wanted, found in ((plain, given), (gae(plain, whole.astype(jnp.float32), mask), gae(given, whole, mask.astype(kind))),
                        (whiten(plain, mask), whiten(given, mask.astype(kind)))):
    jax.tree.map(np.testing.assert_array_equal, wanted, found)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
  last = np.arange(4), MASK.sum(1) - 1
  np.testing.assert_allclose(given[last], SCORES - 0.1 * WHOLE[last], rtol=1e-6)


@pytest.mark.parametrize('of', [lambda r: grouped(r, 4), lambda r: leave_one_out(r, 4)], ids=['grouped', 'leave_one_out'])
def test_whole_rewards_have_advantages_that_are_not_whole(of):
  rewards = jnp.array([1, 0, 0, 2, 3, 3, 1, 3])
  np.testing.assert_array_equal(of(rewards), of(rewards.astype(jnp.float32)))
  assert of(rewards).dtype == jnp.float32 and (np.abs(of(rewards) % 1) > 0.01).any()


@pytest.mark.parametrize('of', [
  lambda r: grouped(r, 4), lambda r: leave_one_out(r, 4), lambda r: whiten(r, jnp.ones(8)),
  lambda r: token_rewards(r, jnp.zeros((8, 2)), jnp.ones((8, 2)), beta=0.1).sum(1),
  lambda r: gae(jnp.stack([r, r], 1), jnp.zeros((8, 2)), jnp.ones((8, 2))).advantages_BT[:, 0]])
def test_a_reward_that_is_no_number_is_never_taken_for_0(of):
  """A sum that skipped NaN made such an answer an average one. Here it stays NaN, which stops a run, wherever it counts."""
  rewards = jnp.arange(8.0).at[2].set(jnp.nan)
  assert np.isnan(of(rewards)[2])
  assert np.isfinite(of(jnp.arange(8.0))).all()


def test_one_answer_or_one_token_is_no_division_by_zero():
  """The deviation of n - 1 has none left: of a group of one, and of a batch with one token that counts."""
  for deviation in ('sample', 'population', 'none'):
    np.testing.assert_array_equal(grouped(jnp.array([3.0, -2.0]), 1, deviation=deviation), 0)
    for mask in ([0.0, 1.0], [0.0, 0.0]):
      np.testing.assert_array_equal(whiten(jnp.array([4.0, 5.0]), jnp.array(mask), deviation=deviation), 0)


@pytest.mark.parametrize('average', [PerToken(), PerAnswer(), PerConstant(4)], ids=str)
def test_answers_alike_in_reward_give_exactly_no_gradient(average):
  """And so does an answer of no tokens. The mean of seven times 0.1 is not 0.1, and 1e-4 is a small divisor."""
  assert jnp.full(7, 0.1).mean() != 0.1
  advantage = grouped(jnp.full(7, 0.1), 7)[:, None] * jnp.ones((7, 4))
  mask = jnp.ones((7, 4)).at[1].set(0)

  def total(x):
    return average(losses.clipped_surrogate(x, x - 0.3, advantage), mask).value()

  loss, grad = jax.value_and_grad(total)(-jnp.ones((7, 4)))
  assert loss == 0 and (grad == 0).all()


def test_the_end_of_a_turn_is_learnt_where_padding_is_the_same_token():
  """Masks that were made by id != pad lost it, and models never learnt to stop."""
  tokenizer = own(ChatML())
  ids, mask = render(ChatML(), tokenizer, [Message('user', 'Hi'), Message('assistant', 'Hello!')])
  model, params = made(replace(small(layers=1), vocab=tokenizer.size))

  def batch(pad: int):
    row = np.full((1, len(ids) + 5), pad)
    row[0, :len(ids)] = ids
    real = np.arange(row.shape[1])[None] < len(ids)
    learnt = np.zeros(row.shape, np.float32)
    learnt[0, :len(ids)] = mask
    return {'tokens': jnp.asarray(row, jnp.int32), 'segments': jnp.asarray(real, jnp.int32), 'mask': jnp.asarray(learnt)}

  end = int(ids[-1])
  assert shift(batch(end)).weights_BL[0, len(ids) - 2] == 1 and shift(batch(end)).weights_BL.sum() == mask.sum()
  of = jax.jit(lambda batch: NextToken()(model)(params, {}, batch, jax.random.key(0)).objective)
  jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-6), of(batch(end)), of(batch(tokenizer.pad)))


FAMILY = [DPO(), Hinge(), IPO(), SimPO(), ORPO()]


@pytest.mark.parametrize('objective', FAMILY, ids=lambda each: type(each).__name__)
def test_what_is_of_sums_and_what_is_of_means(objective):
  """Answers said twice over, token for token: IPO, SimPO and ORPO are of means and do not notice; DPO and its hinge are of
  sums. IPO on sums had its margin grow with the length of answers."""
  logp, ref = jnp.array([[-4.0, -6.0]]), jnp.array([[-4.5, -5.0]])
  once = objective.loss(Compared(logp, ref, jnp.array([[3.0, 4.0]])))
  twice = objective.loss(Compared(2 * logp, 2 * ref, jnp.array([[6.0, 8.0]])))
  assert bool(jnp.allclose(once, twice, rtol=1e-6)) == isinstance(objective, IPO | SimPO | ORPO)


def test_the_reference_point_of_kto_gets_no_gradient():
  def loss(mismatched):
    reference = jnp.full(2, kto_reference(mismatched))
    return losses.kto(jnp.zeros(2), jnp.ones(2), jnp.array([True, True]), reference, beta=1.0).sum()

  np.testing.assert_array_equal(jax.grad(loss)(jnp.array([1.0, 2.0])), 0)


B, B1, BT, B1T = jnp.zeros(3), jnp.zeros((3, 1)), jnp.zeros((3, 4)), jnp.zeros((3, 1))
MISFITS = {
  'bradley_terry': lambda: losses.bradley_terry(B, B1),
  'dpo': lambda: losses.dpo(B, B, B1, B, beta=0.1), 'ipo': lambda: losses.ipo(B, B1, B, B, beta=0.1),
  'hinge': lambda: losses.hinge(B1, B, B, B, beta=0.1), 'simpo': lambda: losses.simpo(B, B1, beta=1.0, gamma=0.0),
  'orpo': lambda: losses.orpo_odds(B1, B), 'kto': lambda: losses.kto(B, B, jnp.ones((3, 1), bool), B, beta=0.1),
  'clipped_surrogate': lambda: losses.clipped_surrogate(BT, BT, B1T), 'value': lambda: losses.value(BT, B1T, BT),
  'sequence_logp': lambda: losses.sequence_logp(BT, BT, B1T), 'centring': lambda: losses.centring(B, B1),
  'process_reward': lambda: losses.process_reward(BT, B1T), 'token_rewards': lambda: token_rewards(B, BT, B1T, beta=0.1),
  'gae': lambda: gae(BT, B1T, BT), 'whiten': lambda: whiten(BT, B1T),
}


@pytest.mark.parametrize('name', MISFITS)
def test_arrays_of_other_shapes_are_refused_and_not_stretched(name):
  """[B] beside [B, 1] would be [B, B], each answer judged by every reference: a loss that falls and means nothing."""
  with pytest.raises(AssertionError, match='shape'):
    MISFITS[name]()
