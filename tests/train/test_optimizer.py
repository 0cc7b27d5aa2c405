"""The chain: each rule against optax's own, decay by kind, rates per parameter, skipped steps, the moving average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from model.errors import ConfigError
from train.optimizer import AdamW, Lion, Muon, Optimizer, Parts, averaged, skipped
from train.schedule import Constant

PARAMS = {'w': jnp.ones((3, 8, 12)), 'norm': jnp.ones((8,)), 'table': jnp.ones((16, 8)), 'head': jnp.ones((8, 16))}
PARTS = Parts(kinds={'w': 'matrix', 'norm': 'vector', 'table': 'embedding', 'head': 'head'},
              matrices={'w': MuonDimensionNumbers((1,), (2,)), 'norm': None, 'table': None, 'head': None},
              rates=jax.tree.map(lambda _: 1.0, PARAMS))


def grads(seed):
  keys = jax.random.split(jax.random.key(seed), len(PARAMS))
  return {name: jax.random.normal(key, leaf.shape) for key, (name, leaf) in zip(keys, PARAMS.items())}


def walk(tx, steps=3, params=PARAMS):
  state = tx.init(params)
  for seed in range(steps):
    updates, state = tx.update(grads(seed), state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def chain(rule):
  return Optimizer(rule, Constant(), clip=1e9)(10, PARTS)


DECAYED = {'w': True, 'norm': False, 'table': False, 'head': True}


@pytest.mark.parametrize('ours, theirs', [
    (AdamW(1e-2), optax.adamw(1e-2, 0.9, 0.95, weight_decay=0.1, mask=DECAYED)),
    (Lion(1e-2), optax.lion(1e-2, weight_decay=1.0, mask=DECAYED)),
])
def test_a_rule_is_optax_s_with_decay_on_matrices_and_head_alone(ours, theirs):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), walk(chain(ours))[0], walk(theirs)[0])


def test_muon_makes_each_matrix_of_a_stack_nearly_orthogonal_with_an_even_rms():
  tx = chain(Muon(lr=1.0, weight_decay=0.0))
  updates, _ = tx.update(grads(0), tx.init(PARAMS), PARAMS)
  values = np.linalg.svd(np.asarray(updates['w']) / (0.2 * np.sqrt(12)), compute_uv=False)
  assert values.shape == (3, 8) and values.min() > 0.5 and values.max() < 1.4
  assert float(jnp.sqrt((updates['w']**2).mean())) == pytest.approx(0.2, rel=0.2)


def test_muon_leaves_everything_else_to_adam():
  both, adam = walk(chain(Muon(others=AdamW(1e-2))))[0], walk(chain(AdamW(1e-2)))[0]
  for name in ('norm', 'table', 'head'):
    np.testing.assert_array_equal(both[name], adam[name])
  assert not np.allclose(both['w'], adam['w'])


def test_rates_multiply_the_learning_rate():
  half = PARTS._replace(rates=PARTS.rates | {'table': 0.5})
  tx, whole = Optimizer(AdamW(1e-2), Constant())(10, half), Optimizer(AdamW(1e-2), Constant())(10, PARTS)
  slow, fast = (walk(t, 1)[0]['table'] - 1 for t in (tx, whole))
  np.testing.assert_allclose(slow, fast / 2, rtol=1e-6)


def test_clip_bounds_the_gradient_that_the_rule_sees():
  class Plain(AdamW):
    def __call__(self, parts):
      return optax.identity()

  tx = Optimizer(Plain(), Constant(), clip=0.5)(10, PARTS)
  updates, _ = tx.update(grads(0), tx.init(PARAMS), PARAMS)
  assert float(optax.global_norm(updates)) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize('rule', [AdamW(), Muon(), Lion()])
def test_a_step_with_one_nan_changes_nothing_and_is_counted(rule):
  tx = chain(rule)
  params, state = walk(tx)
  bad = grads(7)
  bad['norm'] = bad['norm'].at[3].set(jnp.nan)
  updates, after = tx.update(bad, state, params)
  assert all(float(jnp.abs(u).max()) == 0 for u in jax.tree.leaves(updates))
  assert int(skipped(after)) == 1
  good, healed = tx.update(grads(8), after, params)
  expected, _ = tx.update(grads(8), state, params)
  jax.tree.map(np.testing.assert_array_equal, good, expected)
  assert int(skipped(healed)) == 0


def test_the_moving_average_follows_the_parameters():
  tx = Optimizer(AdamW(1e-2), Constant(), ema=0.75)(10, PARTS)
  params, state, expected = PARAMS, tx.init(PARAMS), PARAMS
  for seed in range(4):
    updates, state = tx.update(grads(seed), state, params)
    params = optax.apply_updates(params, updates)
    expected = jax.tree.map(lambda e, p: 0.75 * e + 0.25 * p, expected, params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), averaged(state), expected)
  assert averaged(walk(chain(AdamW()))[1]) is None


def halved(tree):
  return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)


@pytest.mark.parametrize('rule', [AdamW(), Muon(), Lion()])
def test_parameters_in_bfloat16_have_moments_and_an_average_in_float32(rule):
  tx, params = Optimizer(rule, Constant(), ema=0.999)(10, PARTS), halved(PARAMS)
  state = tx.init(params)
  updates, after = tx.update(halved(grads(0)), state, params)
  for tree in (state, after):
    assert {leaf.dtype for leaf in jax.tree.leaves(tree) if leaf.ndim} == {jnp.dtype('float32')}
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), jax.tree.map(jnp.shape, after), jax.tree.map(jnp.shape, state))
  assert {leaf.dtype for leaf in jax.tree.leaves(optax.apply_updates(params, updates))} == {jnp.dtype('bfloat16')}


def test_an_average_of_parameters_in_bfloat16_follows_them():
  """Each step adds a thousandth of the difference, which 1 in bfloat16 would not take up."""
  tx = Optimizer(AdamW(weight_decay=0.0), Constant(), ema=0.999)(10, PARTS)
  start, there = halved(PARAMS), halved(jax.tree.map(lambda leaf: 2 * leaf, PARAMS))
  state, still = tx.init(start), jax.tree.map(jnp.zeros_like, start)
  for _ in range(100):
    _, state = tx.update(still, state, there)
  jax.tree.map(lambda leaf: np.testing.assert_allclose(leaf, 2 - 0.999 ** 100, rtol=1e-5), averaged(state))


def test_a_second_moment_of_gradients_in_bfloat16_reaches_their_size():
  """A gradient of 1, always: after so many steps with b2 = 0.999 the moment is 1 - 0.999^n. In bfloat16 it stops at 1/2."""
  tx, params = Optimizer(AdamW(b2=0.999), Constant(), clip=1e9)(10, PARTS), halved(PARAMS)
  ones = jax.tree.map(jnp.ones_like, params)
  _, state = jax.lax.scan(lambda state, _: (tx.update(ones, state, params)[1], None), tx.init(params), length=3000)[::-1]
  nu = optax.tree_utils.tree_get(state, 'nu')
  jax.tree.map(lambda leaf: np.testing.assert_allclose(leaf, 1 - 0.999 ** 3000, rtol=1e-3), nu)


@pytest.mark.parametrize('make, word', [
    (lambda: AdamW(lr=0.0), 'lr = 0.0'), (lambda: Muon(lr=-1.0), 'lr = -1.0'), (lambda: Optimizer(clip=0.0), 'clip = 0.0'),
    (lambda: Optimizer(ema=1.0), 'ema = 1.0')])
def test_a_rate_out_of_range_is_refused(make, word):
  with pytest.raises(ConfigError, match=word):
    make()
