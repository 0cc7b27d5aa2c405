"""Laws of `kernels.head`: a float64 softmax gives its values and gradients, and its memory knows no [B, L, V]."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import head as head_module
from kernels import tiles
from kernels.head import HeadSums, token_logp, weighted_nll
from model.sharding import MeshShape
from tests.kernels.calls import counted
from tests.kernels.collectives import exchanged

B, L, D, V = 3, 7, 8, 19
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
PLAIN = (None, 0.0, 0.0, None)
WITH_Z = (None, 0.3, 0.0, None)


def inputs(length=L, batch=B, seed=0):
  """x, w, targets, and weights of which some are 0 and some above 1."""
  rng = np.random.default_rng(seed)
  x, w = rng.normal(size=(batch, length, D)), rng.normal(size=(D, V))
  weights = rng.uniform(0, 2, (batch, length)) * (rng.uniform(size=(batch, length)) < 0.7)
  weights[0, 0] = 1.5
  return x.astype(np.float32), w.astype(np.float32), rng.integers(0, V, (batch, length)), weights.astype(np.float32)


def rounded(a, dtype):
  return np.asarray(a if dtype is None else jnp.asarray(a, dtype), np.float64)


def truth(x, w, targets, weights, softcap=None, z=0.0, smoothing=0.0, dtype=None):
  """(nll, z, correct, spread), logp, and the gradients by x and w of what is to be differentiated, all in float64."""
  x, w, weights = rounded(x, dtype), rounded(w, dtype), np.asarray(weights, np.float64)
  raw = x @ w
  logits = raw if softcap is None else softcap * np.tanh(raw / softcap)
  top = logits.max(-1, keepdims=True)
  lse = (top + np.log(np.exp(logits - top).sum(-1, keepdims=True)))[..., 0]
  logp = np.take_along_axis(logits, targets[..., None], -1)[..., 0] - lse
  spread = (weights * (lse - logits.mean(-1))).sum() if smoothing else 0.0
  sums = (weights * -logp).sum(), (weights * lse**2).sum(), (weights * (logits.argmax(-1) == targets)).sum(), spread
  dlogits = (weights * (1 + 2 * z * lse))[..., None] * np.exp(logits - lse[..., None])
  dlogits -= weights[..., None] * ((1 - smoothing) * (np.arange(w.shape[1]) == targets[..., None]) + smoothing / w.shape[1])
  if softcap is not None:
    dlogits *= 1 - (logits / softcap) ** 2
  return sums, logp, dlogits @ w.T, np.einsum('bld,blv->dv', x, dlogits)


def objective(x, w, targets, weights, softcap, z, smoothing, dtype):
  sums = weighted_nll(x, w, targets, weights, softcap=softcap, z_coefficient=z, smoothing=smoothing, dtype=dtype)
  return (1 - smoothing) * sums.nll + smoothing * sums.spread + z * sums.z, sums


def weighed_logp(x, w, targets, weights, softcap=None, temperature=1.0):
  logp = token_logp(x, w, targets, softcap=softcap, temperature=temperature)
  return (weights * logp).sum(), logp


step = jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True), static_argnums=(4, 5, 6, 7))


def close(got, expected, tolerance):
  expected = np.asarray(expected)
  np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * max(np.abs(expected).max(), 1e-3))


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


@pytest.mark.parametrize('last, computed', [(L, 7), (3, 3), (0, 0)])
def test_a_tile_in_which_nothing_counts_is_not_computed(last, computed, monkeypatch):
  """Tiles of one position, of which the first `last` have weight in some row: so many are computed, also of the log-probs."""
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', B * V)
  x, w, targets, _ = inputs()
  weights = np.zeros((B, L), np.float32)
  weights[1, :last] = 1.5
  runs = counted(monkeypatch, head_module, '_logits')

  def times(function):
    runs.clear()
    jax.block_until_ready(jax.jit(function)(x, w))
    jax.effects_barrier()
    return len(runs)

  assert times(jax.value_and_grad(lambda x, w: weighted_nll(x, w, targets, weights).nll, (0, 1))) == computed
  assert times(lambda x, w: weighted_nll(x, w, targets, weights).nll) == computed
  assert times(jax.grad(lambda x, w: weighed_logp(x, w, targets, weights)[0])) == L + computed      # all of them forward
  (value, _), gradients = step(x, w, targets, weights, *WITH_Z)
  expected = truth(x, w, targets, weights, None, 0.3)
  close(value, expected[0][0] + 0.3 * expected[0][1], 1e-5)
  for value, true in zip(gradients, expected[2:]):
    close(value, true, 1e-5)


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


def largest(jaxpr):
  """The most elements that any value of a jaxpr has, those of its inner jaxprs included."""
  sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars]
  bodies = [getattr(value, 'jaxpr', value) for eqn in jaxpr.eqns for value in jax.tree.leaves(eqn.params)]
  return max([*sizes, *(largest(body) for body in bodies if hasattr(body, 'eqns')), 0])


def test_no_array_of_all_logits(monkeypatch):
  """Neither in what is traced nor in what is compiled; plain cross-entropy, the control, has both."""
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', 4 * 16 * 512)
  shapes = [jax.ShapeDtypeStruct(s, d) for s, d in
            [((4, 256, 8), 'float32'), ((8, 512), 'float32'), ((4, 256), 'int32'), ((4, 256), 'float32')]]
  everything = 4 * 256 * 512

  def plain(x, w, targets, weights):
    logp = jax.nn.log_softmax(x @ w)
    return -(weights * jnp.take_along_axis(logp, targets[..., None], -1)[..., 0]).sum()

  def ours(x, w, targets, weights):
    return objective(x, w, targets, weights, *WITH_Z)[0]

  def logp(x, w, targets, weights):
    return (weights * token_logp(x, w, targets)).sum()

  for loss, small in ((ours, True), (logp, True), (plain, False)):
    grad = jax.grad(loss, (0, 1))
    held = jax.jit(grad).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert (largest(jax.make_jaxpr(grad)(*shapes).jaxpr) < everything / 4) is small
    assert (held < everything) is small          # a quarter of what the logits alone take in float32


@pytest.mark.parametrize('groups', [4, 1])
def test_rows_and_vocabulary_over_eight_devices(groups, monkeypatch):
  """The same numbers. In a tile sums and maxima over the vocabulary are exchanged, and what x gets back: no logits, no head.

  The head's gradient is exchanged after the last tile; the control, told nothing of the rows, does it in every one.
  """
  monkeypatch.setattr(tiles, 'TILE_ON_CPU', 8 * 2 * 64 // 8)      # 3 tiles of two positions
  rng = np.random.default_rng(1)
  x, w, weights = (rng.normal(size=s).astype(np.float32) for s in [(8, 6, 20), (20, 64), (8, 6)])
  targets, mesh = rng.integers(0, 64, (8, 6)), MeshShape(data=4, tensor=2).build()
  laid = [jax.device_put(a, NamedSharding(mesh, P(*spec))) for a, spec in
          [(x, ['data']), (w, [None, 'tensor']), (targets, ['data']), (weights, ['data'])]]

  def both(x, w, targets, weights):
    def loss(x, w):
      sums = weighted_nll(x, w, targets, weights, z_coefficient=0.3, smoothing=0.1, groups=groups)
      return 0.9 * sums.nll + 0.1 * sums.spread + 0.3 * sums.z, sums

    grad = jax.grad(lambda x, w: (weights * token_logp(x, w, targets, groups=groups)).sum(), (0, 1))
    return jax.value_and_grad(loss, (0, 1), has_aux=True)(x, w), grad(x, w)

  with jax.set_mesh(mesh):
    compiled = jax.jit(both).lower(*laid).compile()
    ((_, sums), gradients), others = compiled(*laid)
  told = exchanged(compiled.as_text())
  assert {each.kind for each in told} == {'all-reduce'}
  assert not any(math.prod(each.shape) >= 2 * 2 * 32 for each in told if 20 not in each.shape), told      # no logits
  assert {each.inside for each in told if each.shape[-2:] == (20, 32)} == {groups == 1}, told
  expected = truth(x, w, targets, weights, None, 0.3, 0.1)
  for value, true in zip(sums, expected[0]):
    close(value, true, 1e-5)
  for value, true in zip((*gradients, *others), (*expected[2:], *(-g for g in truth(x, w, targets, weights)[2:]))):
    close(value, true, 1e-5)


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
