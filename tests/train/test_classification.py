"""The loss of classes: known answers, a sum over judged positions, and a law that is learnt from examples of it."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.classifier import Classifier
from model.errors import ConfigError
from tests.model.variants import ENCODERS, VARIANTS, made
from train.classification import Classification, said
from train.step import accumulate, born, gradient, make_step

SEGMENTS = np.array([[1] * 5 + [2] * 4 + [0]] * 4, np.int32)


def batch(seed: int = 0, rows: int = 4) -> dict[str, jax.Array]:
  """Two texts a row, of 5 and 4 tokens; a text is of class 1 where token 7 is in it, else 0."""
  random = np.random.default_rng(seed)
  tokens = random.integers(8, 64, (rows, 10))
  targets, mask = np.zeros((rows, 10), np.int32), np.zeros((rows, 10), np.float32)
  for row in range(rows):
    for begin, end in ((0, 5), (5, 9)):
      mask[row, begin] = 1
      if random.random() < 0.5:
        tokens[row, random.integers(begin + 1, end)], targets[row, begin] = 7, 1
  return {'tokens': jnp.asarray(tokens), 'segments': jnp.asarray(SEGMENTS[:1].repeat(rows, 0)),
          'targets': jnp.asarray(targets), 'mask': jnp.asarray(mask)}


def learner(config=ENCODERS['bert'], head=Classifier(2, 'mean')):
  model, params = made(config)
  return model, head(params, jax.random.key(1))


@cache
def _loss(objective, model):
  return jax.jit(objective(model))


def loss_of(objective, model, params, rows):
  return _loss(objective, model)(params, {}, rows, jax.random.key(0))


def test_the_loss_is_that_worked_out_by_hand():
  logp = jnp.log(jnp.array([[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]]]))
  targets, weights = jnp.array([[0, 2, 1]]), jnp.array([[1.0, 1.0, 0.0]])
  loss = Classification().judged(logp, targets, weights, {})
  assert float(loss.objective.value()) == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2, rel=1e-6)
  assert float(loss.metrics['accuracy'].value()) == 0.5 and float(loss.objective.weight) == 2
  smooth = Classification(0.3).judged(logp, targets, weights, {'balance': jnp.array([0.25])})
  spread = -(np.log([0.5, 0.3, 0.2]).mean() + np.log([0.1, 0.8, 0.1]).mean()) / 2
  wanted = 0.7 * float(loss.objective.value()) + 0.3 * spread + 0.25
  assert float(smooth.objective.value()) == pytest.approx(wanted, rel=1e-6)
  assert float(smooth.metrics['nll'].value()) == pytest.approx(float(loss.objective.value()), rel=1e-6)


def test_it_is_torchs_label_smoothing():
  """torch.nn.functional.cross_entropy([[1., 2., 0.5]], [2], label_smoothing=0.1) of torch 2.13."""
  logp = jax.nn.log_softmax(jnp.array([[[1.0, 2.0, 0.5]]]))
  loss = Classification(0.1).judged(logp, jnp.array([[2]]), jnp.ones((1, 1)), {})
  assert float(loss.objective.value()) == pytest.approx(1.8977022, abs=1e-6)


def test_only_judged_positions_count_and_rows_add_up():
  model, params = learner(VARIANTS['mixtral'])
  rows, objective = batch(), Classification(0.1)
  whole = loss_of(objective, model, params, rows)
  parts = [loss_of(objective, model, params, {name: column[i:i + 1] for name, column in rows.items()}) for i in range(4)]
  np.testing.assert_allclose(whole.objective.total, sum(float(part.objective.total) for part in parts), rtol=1e-5)
  elsewhere = rows | {'targets': jnp.where(rows['mask'] > 0, rows['targets'], 1 - rows['targets'])}
  np.testing.assert_array_equal(loss_of(objective, model, params, elsewhere).objective.total, whole.objective.total)
  key = jax.random.key(0)
  one, many = (jax.jit(grad)(params, {}, rows, key)[0] for grad in (
    gradient(objective(model)), accumulate(gradient(objective(model)), 4)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, many)


def test_what_is_said_is_what_the_loss_is_of():
  model, params = learner()
  rows = batch()
  found, loss = said(model)(params, rows), loss_of(Classification(), model, params, rows)
  np.testing.assert_allclose((found.nll_BL * rows['mask']).sum(), loss.objective.total, rtol=1e-6)
  right = ((found.class_BL == rows['targets']) * rows['mask']).sum()
  assert float(right) == float(loss.metrics['accuracy'].total)


def test_a_planted_law_is_learnt_and_without_it_nothing_is():
  model, params = learner()
  tx, objective = optax.adam(3e-3), Classification()
  step = jax.jit(make_step(gradient(objective(model)), tx))

  def taught(shuffled: bool) -> float:
    state = born(lambda key: params, jax.random.key(0), tx)
    for seed in range(150):
      rows = batch(seed, 32)
      if shuffled:
        rows |= {'targets': rows['targets'][::-1]}
      state, _ = step(state, {}, rows)
    return float(loss_of(objective, model, state.params, batch(1000, 128)).metrics['accuracy'].value())

  assert taught(False) > 0.95 and taught(True) < 0.65


def test_a_share_that_is_none_is_refused():
  for smoothing in (-0.1, 1.0):
    with pytest.raises(ConfigError, match='out-of-range'):
      Classification(smoothing)
