"""KTO: what it begins with, what moves it which way, and that nothing that should not matter does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from align.answer_logps import pair_logps
from align.kto import ANOTHERS, KTO, OWN, SideLogps, side_logps
from model.errors import ConfigError
from tests.align.pairs import batch, check_invariant, check_own_reference, same, taken
from tests.model.variants import made, small
from train.step import born, gradient, make_step

MODEL, PARAMS = made(small(layers=1))
REFER = jax.jit(lambda params, sides: pair_logps(MODEL, params, sides).logp_BP)
LABELS = jnp.array([1.0, 0, 1, 1, 0, 0, 1, 0])


def labelled(sides=None, kl: float = 0.0) -> dict:
  """A batch whose reference is the model itself."""
  sides = batch() if sides is None else sides
  return sides | {'label': LABELS, 'kl': jnp.full(8, kl), 'reference': REFER(PARAMS, sides)}


def test_it_begins_at_half_of_each_weight():
  for objective in (KTO(), KTO(beta=2.0, desirable=1.5, undesirable=0.5)):
    _, loss = taken(objective, MODEL, PARAMS, labelled())
    np.testing.assert_allclose(loss.objective.value(), (objective.desirable + objective.undesirable) / 4, rtol=1e-5)
    assert float(loss.objective.weight) == 8


def test_known_answers():
  """sigmoid(-0.1 (2 - 0.5)) of a good answer, sigmoid(0.1 (-1 - 0.5)) of a bad one."""
  own = SideLogps(jnp.array([-10.0, -12.0]), jnp.array([-12.0, -11.0]), {})
  loss = KTO(beta=0.1, desirable=1.0, undesirable=2.0).loss_of(own, jnp.array([1.0, 0.0]), jnp.full(2, 0.5), jnp.ones(2))
  np.testing.assert_allclose(loss.objective.total, 0.4625702 + 2 * 0.4625702, rtol=1e-5)
  assert float(loss.metrics['accuracy'].value()) == 1
  np.testing.assert_allclose(loss.metrics['reward_good'].value(), 0.2, rtol=1e-5)
  np.testing.assert_allclose(loss.metrics['reward_bad'].value(), -0.1, rtol=1e-5)


def test_each_side_is_its_own():
  sides = labelled()
  for side in (OWN, ANOTHERS):
    found = jax.jit(lambda sides, side=side: side_logps(MODEL, PARAMS, sides, side))(sides)
    np.testing.assert_allclose(found.logp_B, sides['reference'][:, side], rtol=1e-5)
    np.testing.assert_allclose(found.gain_B, 0, atol=1e-4)


def test_good_answers_rise_and_bad_ones_fall():
  """The gradient is the sum of theirs, each times its weight: of the good alone it is the negative of them labelled bad."""
  sides, (plain, stern) = labelled(), (jax.jit(gradient(KTO(undesirable=weight)(MODEL))) for weight in (1.0, 3.0))
  def of(grad_fn, label):
    return grad_fn(PARAMS, {}, sides | {'label': jnp.full(8, label)}, jax.random.key(0))[0]
  good, bad = of(plain, 1.0), of(plain, 0.0)
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(good)) > 1e-2
  same(good, jax.tree.map(jnp.negative, bad))
  same(of(stern, 0.0), jax.tree.map(lambda leaf: 3 * leaf, bad))
  same(of(stern, 1.0), good)


def test_the_point_moves_the_loss_and_gets_no_gradient():
  good, loss_fn = labelled() | {'label': jnp.ones(8)}, KTO(beta=1.0)(MODEL)
  total = jax.jit(jax.value_and_grad(lambda kl: loss_fn(PARAMS, {}, good | {'kl': kl}, jax.random.key(0)).objective.total))
  for kl in (0.0, 2.0):
    value, grad = total(jnp.full(8, kl))
    np.testing.assert_allclose(value, 8 * jax.nn.sigmoid(kl), rtol=1e-5)
    assert not grad.any()


def test_what_stands_beside_an_answer_is_not_in_its_loss():
  sides = labelled()
  other = sides | {'tokens': sides['tokens'].at[:, ANOTHERS].add(1)}
  loss_fn = jax.jit(lambda sides: KTO()(MODEL)(PARAMS, {}, sides, jax.random.key(0)))
  same(loss_fn(sides), loss_fn(other))


def test_padding_parts_devices_and_rows_that_fill_up_change_nothing(monkeypatch):
  """With both labels and a point above 0."""
  def with_labels(*args, **kwargs):
    return batch(*args, **kwargs) | {'label': LABELS, 'kl': jnp.full(8, 0.3)}
  monkeypatch.setattr('tests.align.pairs.batch', with_labels)
  check_invariant(KTO(), MODEL, PARAMS)


def test_adapters_are_their_own_reference():
  check_own_reference(KTO(beta=1.0), MODEL, PARAMS, labelled(), 0.5)
  live = {name: value for name, value in labelled().items() if name != 'reference'}
  with pytest.raises(ConfigError, match=r'dpo\.no-reference'):
    KTO()(MODEL)(PARAMS, {}, live, jax.random.key(0))


def planted(seed: int) -> dict:
  """Good answers are of even tokens, bad ones of odd tokens; those beside them are of both."""
  sides = batch(seed=seed)
  odd = (1 - LABELS.astype(jnp.int32))[:, None]
  own = jnp.where(sides['mask'][:, OWN] > 0, sides['tokens'][:, OWN] // 2 * 2 + odd, sides['tokens'][:, OWN])
  return labelled(sides | {'tokens': sides['tokens'].at[:, OWN].set(own)})


def test_a_planted_preference_is_learnt_from_labels_alone():
  """On answers never seen, in two dozen steps, each with the point of its own parameters."""
  tx = optax.adam(1e-2)
  state = born(lambda key: PARAMS, jax.random.key(0), tx)
  loss_fn = KTO(beta=0.5)(MODEL)
  step = jax.jit(make_step(gradient(loss_fn), tx))
  point = jax.jit(lambda params, sides: jnp.maximum(side_logps(MODEL, params, sides, ANOTHERS).gain_B.mean(), 0.0))
  for seed in range(24):
    sides = planted(seed)
    state, _ = step(state, {}, sides | {'kl': jnp.full(8, point(state.params, sides))})
  held = planted(1000)
  after = jax.jit(loss_fn)(state.params, {}, held | {'kl': jnp.full(8, point(state.params, held))}, jax.random.key(0))
  assert float(after.objective.value()) < 0.4 and float(after.metrics['accuracy'].value()) > 0.8
  assert float(after.metrics['reward_good'].value()) > 0 > float(after.metrics['reward_bad'].value())


def test_settings_out_of_range_are_refused():
  for fields in ({'beta': 0.0}, {'desirable': -1.0}, {'undesirable': 0.0}):
    with pytest.raises(ConfigError, match='out-of-range'):
      KTO(**fields)
