"""Laws of `kernels.head`: values and gradients as by a softmax in float64, and positions of weight 0 have no effect."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kernels import tiles
from kernels.head import HeadSums, token_logp, weighted_nll
from tests.kernels.head_table import PLAIN, WITH_Z, B, D, L, V, close, inputs, objective, step, truth, weighed_logp

# name: (positions, soft cap, z coefficient, smoothing, operand type)
CASES = {
  'plain': (L, None, 0.0, 0.0, None),
  'one position': (1, None, 0.0, 0.0, None),
  'z': (L, None, 0.3, 0.0, None),
  'cap and z': (L, 4.0, 0.3, 0.0, None),
  'smooth': (L, None, 0.0, 0.1, None),
  'cap, z and smooth': (L, 4.0, 0.3, 0.4, None),
  'bfloat16': (L, None, 0.3, 0.1, jnp.bfloat16),
}


@pytest.mark.parametrize('tile', [1, 3, 100])
def test_values_and_gradients(tile, monkeypatch):
  """With tiles of one position, of a number that does not divide the length, and with one tile for all."""
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', tile * B * V)
  data = {name: inputs(case[0]) for name, case in CASES.items()}

  @jax.jit
  def run(data):
    sums = {name: jax.value_and_grad(objective, (0, 1), has_aux=True)(*data[name], *case[1:])
            for name, case in CASES.items()}
    logps = [jax.value_and_grad(weighed_logp, (0, 1), has_aux=True)(*data['plain'], cap) for cap in caps]
    return sums, logps

  caps = None, 4.0
  sums, logps = run(data)
  for name, ((_, got), gradients) in sums.items():
    *_, dtype = CASES[name]
    expected, _, *expected_gradients = truth(*data[name], *CASES[name][1:])
    for value, true in zip(got, expected):
      close(value, true, 1e-5)
    for value, true in zip(gradients, expected_gradients):
      assert value.dtype == jnp.float32
      close(value, true, 1e-5 if dtype is None else 1e-2)
  for softcap, ((_, logp), gradients) in zip(caps, logps):
    _, true, *expected_gradients = truth(*data['plain'], softcap)
    close(logp, true, 1e-5)
    for value, true in zip(gradients, expected_gradients):
      close(value, -true, 1e-5)


def test_forward_alone_gives_the_same_sums():
  data = inputs()
  alone = jax.jit(weighted_nll)(*data)
  for got, expected in zip(alone, step(*data, *PLAIN)[0][1]):
    close(got, expected, 1e-6)


def test_weightless_positions_contribute_exactly_nothing():
  """Whatever they hold: infinities, NaN, and targets outside of the vocabulary."""
  x, w, targets, weights = inputs()
  idle = weights == 0
  assert idle.any()
  spoiled = np.where(idle[..., None], np.nan, x), w, np.where(idle, -100, targets), weights
  clean = np.where(idle[..., None], 0, x), w, np.where(idle, 3, targets), weights
  for got, expected in zip(jax.tree.leaves(step(*spoiled, *WITH_Z)), jax.tree.leaves(step(*clean, *WITH_Z))):
    np.testing.assert_array_equal(got, expected)
  np.testing.assert_array_equal(step(*spoiled, *WITH_Z)[1][0][idle], 0)


def test_linear_in_the_weights():
  """Doubling them doubles the sums; the gradient by a weight is its position's own value, and 0 where it is 0."""
  x, w, targets, weights = inputs()
  value, gradient = jax.jit(jax.value_and_grad(lambda weights: weighted_nll(x, w, targets, weights).nll))(2 * weights)
  close(value, 2 * truth(x, w, targets, weights)[0][0], 1e-5)
  close(gradient, np.where(weights == 0, 0, -truth(x, w, targets, weights)[1]), 1e-5)


def test_a_tie_is_no_hit():
  """A head of zeros has learned nothing: an argmax that takes the first index would claim hits on token 0."""
  x, _, targets, weights = inputs()
  sums = jax.jit(weighted_nll)(x, np.zeros((D, V), np.float32), np.zeros_like(targets), weights)
  assert float(sums.correct) == 0
  close(sums.nll, weights.sum() * np.log(V), 1e-6)


def test_another_mix_than_was_computed_is_nan():
  data = inputs()

  @jax.jit
  def pull(nll, z):
    sums, back = jax.vjp(lambda x: weighted_nll(x, *data[1:], z_coefficient=0.3), data[0])
    return back(HeadSums(nll, z, jnp.zeros_like(sums.correct), jnp.zeros_like(sums.spread)))[0]

  assert np.isnan(pull(1.0, 0.0)).all() and np.isnan(pull(1.0, 0.2)).all() and np.isnan(pull(0.0, 1.0)).all()
  close(pull(7.0, 2.1), 7 * truth(*data, None, 0.3)[2], 1e-5)


def test_another_smoothing_than_was_computed_is_nan():
  data = inputs()

  @jax.jit
  def pull(nll, spread):
    sums, back = jax.vjp(lambda x: weighted_nll(x, *data[1:], smoothing=0.25), data[0])
    return back(HeadSums(nll, jnp.zeros_like(sums.z), jnp.zeros_like(sums.correct), spread))[0]

  assert np.isnan(pull(1.0, 0.0)).all() and np.isnan(pull(1.0, 0.25)).all()
  close(pull(1.5, 0.5), 2 * truth(*data, smoothing=0.25)[2], 1e-5)


def test_smoothing_is_that_of_optax_in_float64():
  """Values and gradients; of a share of the vocabulary that counts the true token too."""
  x, w, targets, weights = inputs()
  with jax.enable_x64(True):
    def plain(x, w):
      labels = optax.smooth_labels(jax.nn.one_hot(targets, V, dtype=jnp.float64), 0.2)
      return (weights.astype(np.float64) * optax.softmax_cross_entropy(x @ w, labels)).sum()

    expected, true = jax.value_and_grad(plain, (0, 1))(x.astype(np.float64), w.astype(np.float64))
  (got, _), gradients = step(x, w, targets, weights, None, 0.0, 0.2, None)
  close(got, expected, 1e-6)
  for value, wanted in zip(gradients, true):
    close(value, wanted, 1e-6)


def test_microbatches_in_a_scan_add_up_to_the_batch():
  x, w, targets, weights = inputs(batch=6)

  @jax.jit
  def scanned(w):
    def part(carry, rows):
      (_, sums), (_, dw) = jax.value_and_grad(objective, (0, 1), has_aux=True)(rows[0], w, *rows[1:], *WITH_Z)
      return jax.tree.map(jnp.add, carry, (sums, dw)), None

    rows = jax.tree.map(lambda a: a.reshape(3, 2, *a.shape[1:]), (x, targets, weights))
    zero = jnp.zeros(())
    return jax.lax.scan(part, (HeadSums(zero, zero, zero, zero), jnp.zeros_like(w)), rows)[0]

  sums, dw = scanned(w)
  expected = truth(x, w, targets, weights, None, 0.3)
  close(sums.nll, expected[0][0], 1e-5)
  close(dw, expected[3], 1e-5)


def test_bfloat16_gradient_of_a_tied_table_runs():
  """The head of a tied model is a transpose, and so is its gradient (see kernels.matmul.settled)."""
  x, w, targets, weights = inputs()
  loss = jax.jit(lambda table: weighted_nll(x, table.T, targets, weights, dtype=jnp.bfloat16).nll)
  close(jax.jit(jax.grad(loss))(w.T), truth(x, w, targets, weights, dtype=jnp.bfloat16)[3].T, 1e-2)


def test_shapes_that_do_not_fit_are_named():
  x, w, targets, _ = inputs()
  with pytest.raises(ValueError, match=r'\(3, 7, 8\), \(8, 19\), \(3, 6\)'):
    token_logp(x, w, targets[:, 1:])


def test_a_temperature_divides_the_capped_logits():
  x, w, targets, weights = inputs()

  def plain(x, w):
    logp = jax.nn.log_softmax(4.0 * jnp.tanh(x @ w / 4.0) / 0.7, -1)
    return (weights * jnp.take_along_axis(logp, targets[..., None], -1)[..., 0]).sum()

  got, gradients = jax.value_and_grad(weighed_logp, (0, 1), has_aux=True)(x, w, targets, weights, 4.0, 0.7)
  expected, true = jax.value_and_grad(plain, (0, 1))(x, w)
  close(got[0], expected, 1e-5)
  for value, wanted in zip(gradients, true):
    close(value, wanted, 1e-5)
