"""The reward model: where its number is read, what its loss is, and that it finds what pairs have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from align.pairwise import agreement
from align.reward import RewardModel, Score, score
from model.errors import ConfigError
from model.kinds import kinds
from model.sharding import unbox
from tests.align.pairs import batch, check_invariant, same, swapped, taken
from tests.model.variants import made, small
from train.step import born, gradient, make_step

CONFIG = small(layers=1)


def scoring(config=CONFIG):
  """A model and parameters with a head that scores."""
  model, params = made(config)
  return model, Score()(params, jax.random.key(3))


def rewards(model):
  return jax.jit(lambda params, *rows: score(params, model.hidden(params, *rows), rows[1]))


def test_a_head_is_one_more_leaf_and_begins_small():
  wide = {'embedding': {'table': jnp.zeros((4, 4095))}}
  vector_D = Score()(wide, jax.random.key(0))['score']['vector']
  assert vector_D.shape == (4095,) and vector_D.dtype == jnp.float32
  np.testing.assert_allclose(vector_D.std(), 1 / 64, rtol=0.05)
  model, _ = made(CONFIG)
  boxed = jax.eval_shape(lambda key: Score()(model.init(key), key), jax.random.key(0))
  assert kinds(boxed)['score']['vector'] == 'vector'
  assert jax.tree.structure(unbox(boxed)) == jax.tree.structure(scoring()[1])
  with pytest.raises(ConfigError, match=r'edit\.twice'):
    Score()(scoring()[1], jax.random.key(0))


def test_a_model_without_the_head_is_refused():
  model, params = made(CONFIG)
  with pytest.raises(ConfigError, match=r'reward\.no-head'):
    jax.eval_shape(RewardModel()(model), params, {}, batch(), jax.random.key(0))


def test_the_score_is_read_at_the_last_real_token():
  model, params = scoring()
  sides = batch()
  tokens_RL, segments_RL = (sides[name].reshape(-1, 10) for name in ('tokens', 'segments'))
  read, last = rewards(model), jax.jit(lambda tokens_1L: model.hidden(params, tokens_1L).x_BLD[0, -1])
  found = read(params, tokens_RL, segments_RL)
  for row, length in ((0, 9), (1, 6)):
    alone = last(tokens_RL[row:row + 1, :length])
    np.testing.assert_allclose(found[row], alone @ params['score']['vector'], rtol=1e-4, atol=1e-5)
  changed = tokens_RL.at[jnp.arange(len(tokens_RL)), segments_RL.sum(1) - 1].add(1) % 64
  assert (np.abs(read(params, changed, segments_RL) - found) > 1e-4).all()


def test_the_head_is_in_float32_over_a_stream_of_bfloat16():
  model, params = scoring(small(layers=1, compute_dtype='bfloat16', stream_dtype='bfloat16'))
  sides = batch()
  hidden = jax.jit(model.hidden)(params, sides['tokens'][:, 0], sides['segments'][:, 0])
  found = score(params, hidden, sides['segments'][:, 0])
  last_BD = np.asarray(hidden.x_BLD, np.float64)[np.arange(8), np.asarray(sides['segments'][:, 0].sum(1)) - 1]
  np.testing.assert_allclose(found, last_BD @ np.asarray(params['score']['vector'], np.float64), rtol=1e-5, atol=1e-6)


def test_equal_rewards_cost_ln_2_and_agree_half():
  model, params = scoring()
  level = params | {'score': {'vector': jnp.zeros(16)}}
  _, loss = taken(RewardModel(margin=0.0), model, level, batch())
  np.testing.assert_allclose(loss.objective.value(), np.log(2), rtol=1e-6)
  assert float(loss.metrics['accuracy'].value()) == 0.5 and float(loss.metrics['reward_gap'].value()) == 0
  assert agreement(jnp.array([[2.0, 1.0], [1.0, 1.0], [0.0, 1.0]])).tolist() == [1.0, 0.5, 0.0]


def test_known_answers_of_margin_label_and_centring():
  def value(objective, margin, label=1.0):
    row = {'segments': jnp.ones((1, 2, 3)), 'margin': jnp.array([margin]), 'label': jnp.array([label])}
    return float(objective.loss_of(jnp.array([[1.3, 0.4]]), row, {}).objective.value())
  assert value(RewardModel(), 0.0) == pytest.approx(0.341154, abs=1e-6)
  assert value(RewardModel(), 0.5) == pytest.approx(0.513015, abs=1e-6)
  assert value(RewardModel(margin=0.5), 1.0) == pytest.approx(0.513015, abs=1e-6)
  assert value(RewardModel(centring=0.01), 0.0) == pytest.approx(0.341154 + 0.01 * 1.7 ** 2, abs=1e-6)
  assert value(RewardModel(), 0.0, 0.5) == pytest.approx((0.341154 + 0.341154 + 0.9) / 2, abs=1e-6)


def test_padding_parts_devices_and_rows_that_fill_up_change_nothing():
  check_invariant(RewardModel(centring=0.01), *scoring())


def test_swapping_the_sides_turns_the_gradient_around():
  """Where rewards are equal; and everywhere loss and swapped loss differ by the gap."""
  model, params = scoring()
  objective, sides = RewardModel(margin=0.0), batch()
  level = params | {'score': {'vector': jnp.zeros(16)}}
  one, two = taken(objective, model, level, sides)[0], taken(objective, model, level, swapped(sides))[0]
  assert float(jnp.abs(one['score']['vector']).max()) > 0.1
  same(one, jax.tree.map(jnp.negative, two))
  one, two = (taken(objective, model, params, each)[1] for each in (sides, swapped(sides)))
  np.testing.assert_allclose(one.objective.total - two.objective.total, -one.metrics['reward_gap'].total, rtol=1e-4, atol=1e-5)


def test_a_planted_reward_is_recovered():
  """Pairs ordered by a sum of weights of their tokens: the order of pairs never seen comes out, and not by their length."""
  model, params = scoring()
  weights_V = jnp.asarray(np.random.default_rng(7).normal(size=64), jnp.float32)

  def ordered(seed: int, count: int):
    sides = batch(seed=seed, lengths=((8, 8),) * count)
    worth_BP = (weights_V[sides['tokens']] * sides['segments']).sum(-1)
    flip = worth_BP[:, 0] < worth_BP[:, 1]
    return {name: jnp.where(flip.reshape(-1, *[1] * (value.ndim - 1)), value[:, ::-1], value) if value.ndim > 1 else value
            for name, value in sides.items()}

  objective, tx = RewardModel(margin=0.0), optax.adam(1e-2)
  state = born(lambda key: params, jax.random.key(0), tx)
  step = jax.jit(make_step(gradient(objective(model)), tx))
  held = ordered(1000, 256)
  before = float(taken(objective, model, params, held)[1].metrics['accuracy'].value())
  for seed in range(120):
    state, _ = step(state, {}, ordered(seed, 64))
  after = float(taken(objective, model, state.params, held)[1].metrics['accuracy'].value())
  assert before < 0.65 and after > 0.85


def test_weights_below_zero_are_refused():
  for fields in ({'centring': -0.1}, {'margin': -1.0}):
    with pytest.raises(ConfigError, match='out-of-range'):
      RewardModel(**fields)
