"""The step's laws: parts add up to the whole, devices change nothing, the gradient is of the mean."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from train.step import accumulate, born, gradient, make_step
from train.types import Loss, Mean

WIDTH = 5


def squares(params, frozen, batch, key):
  """A weighted least-squares loss over ragged rows."""
  error_BL = batch['x'] @ params['w'] + params['b'] - batch['y']
  weights_BL = batch['weights']
  total = (weights_BL * error_BL**2).sum()
  return Loss(Mean(total, weights_BL.sum()), {'rows': Mean(jnp.ones(()), jnp.ones(()))})


def data(rows=8, length=6, seed=0):
  rng = np.random.default_rng(seed)
  lengths = rng.integers(0, length + 1, rows)
  return {'x': jnp.array(rng.normal(size=(rows, length, WIDTH)), jnp.float32),
          'y': jnp.array(rng.normal(size=(rows, length)), jnp.float32),
          'weights': jnp.array(np.arange(length) < lengths[:, None], jnp.float32)}


def init(key):
  return {'w': jax.random.normal(key, (WIDTH,)), 'b': jnp.zeros(())}


def walk(grad_fn, batches, tx=None):
  tx = tx or optax.adam(1e-2)
  state = jax.jit(lambda key: born(init, key, tx))(jax.random.key(0))
  step = jax.jit(make_step(grad_fn, tx), donate_argnums=0)
  losses = []
  for batch in batches:
    state, metrics = step(state, {}, batch)
    losses.append(float(metrics['loss'].value()))
  return state, losses


@pytest.mark.parametrize('parts', [2, 4, 8])
def test_accumulated_equals_whole_with_ragged_weights(parts):
  params, batch, key = init(jax.random.key(1)), data(), jax.random.key(2)
  whole_grads, whole = gradient(squares)(params, {}, batch, key)
  grads, loss = jax.jit(accumulate(gradient(squares), parts))(params, {}, batch, key)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), (grads, loss.objective),
               (whole_grads, whole.objective))


def test_gradients_of_parameters_in_bfloat16_are_added_in_float32():
  """1 + 7 times a 256th: in bfloat16 each of those is lost beside the 1."""
  def loss_fn(params, frozen, batch, key):
    return Loss(Mean((batch['x'] * params['w']).sum(), jnp.ones(())), {})

  params, batch = {'w': jnp.zeros((), jnp.bfloat16)}, {'x': jnp.array([1.0, *[2**-8] * 7])}
  grads, _ = accumulate(gradient(loss_fn), 8)(params, {}, batch, jax.random.key(0))
  assert float(grads['w']) == 1 + 7 * 2**-8


def test_a_mean_of_means_would_be_seen():
  """Negative control: the ragged rows above do tell a sum from a mean of the parts' means."""
  params, batch = init(jax.random.key(1)), data()
  halves = [{name: column[i::2] for name, column in batch.items()} for i in (0, 1)]
  means = [squares(params, {}, half, None).objective.value() for half in halves]
  assert abs(float(sum(means) / 2 - squares(params, {}, batch, None).objective.value())) > 1e-3


def test_one_step_is_the_gradient_of_the_mean():
  batch, tx = data(), optax.sgd(0.1)
  state, _ = walk(gradient(squares), [batch], tx)
  before = jax.jit(lambda key: born(init, key, tx))(jax.random.key(0)).params
  slope = jax.grad(lambda p: squares(p, {}, batch, None).objective.value())(before)
  jax.tree.map(lambda a, p, g: np.testing.assert_allclose(a, p - 0.1 * g, rtol=1e-5), state.params, before, slope)


@pytest.mark.parametrize('devices', [2, 4, 8])
def test_splitting_the_batch_over_devices_changes_nothing(devices):
  batches = [data(seed=seed) for seed in range(5)]
  one, losses = walk(gradient(squares), batches)
  mesh = jax.make_mesh((devices,), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices])
  place = NamedSharding(mesh, PartitionSpec('data'))
  many, split = walk(accumulate(gradient(squares), 1), [jax.device_put(batch, place) for batch in batches])
  np.testing.assert_allclose(split, losses, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), many.params, one.params)


def test_an_empty_batch_gives_zero_and_not_nan():
  batch = data() | {'weights': jnp.zeros((8, 6))}
  state, losses = walk(gradient(squares), [batch])
  assert losses == [0.0]
  assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


def test_randomness_is_a_function_of_the_step():
  def noisy(params, frozen, batch, key):
    return Loss(Mean.of(jax.random.normal(key, ())), {})

  _, losses = walk(gradient(noisy), [data()] * 3)
  _, again = walk(gradient(noisy), [data()] * 3)
  assert losses == again and len(set(losses)) == 3


def test_means_add_and_an_empty_one_is_zero():
  both = Mean.of(2.0, 3) + Mean.of(5.0, 1)
  assert float(both.value()) == pytest.approx(11 / 4)
  assert float(Mean.of(7.0, 0).value()) == 0.0
