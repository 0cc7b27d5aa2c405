"""Rates by depth: each layer's own, the laws of what waits, and a run that is cut off while layers still wait."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.config import MuP
from model.decoder import build
from model.errors import ConfigError
from model.kinds import kinds, muon_dimensions
from model.mup import lr_multipliers
from model.sharding import unbox
from model.sizes import llama
from tests.train.going_on import cut_off
from tests.train.runs import same, tiny_run
from train.artifact import Store
from train.depth import ByDepth
from train.optimizer import AdamW, Lion, Muon, Optimizer, Parts
from train.run import Saving
from train.schedule import Constant
from train.trained import load

CONFIG = replace(llama(64, 16, 3, 2), tied=False)
BOXED = jax.eval_shape(build(CONFIG).init, jax.random.key(0))
PARTS = Parts(kinds(BOXED), muon_dimensions(BOXED), lr_multipliers(CONFIG, BOXED))


def grown(seed):
  """A tree shaped like the model's."""
  leaves, tree = jax.tree.flatten(unbox(BOXED))
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return jax.tree.unflatten(tree, [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)])


def walk(optimizer, steps=3, parts=PARTS):
  """The parameters before each step and after the last."""
  tx, params = optimizer(10, parts), grown(0)
  state, seen = tx.init(params), [params]

  @jax.jit
  def step(params, state, grads):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  for seed in range(steps):
    params, state = step(params, state, grown(seed + 1))
    seen.append(params)
  return seen


@pytest.mark.parametrize('rule', [AdamW(1e-2), Muon(1e-2), Lion(1e-2)], ids=['adamw', 'muon', 'lion'])
def test_decay_1_without_waiting_is_no_depth_at_all_to_the_bit(rule):
  same(walk(Optimizer(rule, Constant(), depth=ByDepth(1.0)))[-1], walk(Optimizer(rule, Constant()))[-1])


@pytest.mark.parametrize('mup', [False, True])
def test_each_layer_has_the_rate_of_its_depth_weight_decay_and_mup_included(mup):
  config = replace(CONFIG, mup=MuP(base_width=8, base_head_size=8)) if mup else CONFIG
  parts = PARTS._replace(rates=lr_multipliers(config, BOXED))
  rule = AdamW(1e-2, weight_decay=0.5)
  (begin, slow), (_, full) = (walk(Optimizer(rule, Constant(), depth=depth), 1, parts) for depth in (ByDepth(0.5), None))
  moved, whole = (jax.tree.map(lambda new, old: new - old, each, begin) for each in (slow, full))
  rates = np.array([0.25, 0.5, 1.0])
  for ours, theirs in zip(jax.tree.leaves(moved['layers']), jax.tree.leaves(whole['layers'])):
    np.testing.assert_allclose(ours, theirs * rates.reshape(-1, *(1,) * (theirs.ndim - 1)), rtol=2e-3, atol=1e-7)
  np.testing.assert_allclose(moved['embedding']['table'], whole['embedding']['table'] / 8, rtol=2e-3, atol=1e-7)
  same(moved['norm'], whole['norm'])
  same(moved['head'], whole['head'])


def test_what_waits_does_not_change_by_one_bit_and_layers_join_from_the_top():
  seen = walk(Optimizer(AdamW(1e-2, weight_decay=0.5), Constant(), depth=ByDepth(0.9, unfreeze=2)), 10)

  def stands(step, tree):
    return bool((np.asarray(tree(seen[step])) == np.asarray(tree(seen[step + 1]))).all())

  for layer in range(3):
    turn = 2 * (3 - layer)
    for step in range(10):
      every = [np.asarray(a)[layer] for a in jax.tree.leaves(seen[step]['layers'])]
      after = [np.asarray(a)[layer] for a in jax.tree.leaves(seen[step + 1]['layers'])]
      assert all((a == b).all() for a, b in zip(every, after)) == (step < turn)
  for step in range(10):
    assert stands(step, lambda tree: tree['embedding']['table']) == (step < 8)
    assert not stands(step, lambda tree: tree['head']['weight'])


def test_a_layer_that_begins_has_the_moments_of_one_that_never_waited():
  late, early = (Optimizer(AdamW(1e-2), Constant(), clip=1e9, depth=ByDepth(1.0, unfreeze))(10, PARTS) for unfreeze in (2, 0))
  params = grown(0)
  states = [tx.init(params) for tx in (late, early)]
  for seed in range(3):
    (one, first), (two, second) = (tx.update(grown(seed + 1), state, params) for tx, state in zip((late, early), states))
    states = [first, second]
  top = [np.asarray(jax.tree.leaves(each['layers'])[0])[2] for each in (one, two)]
  np.testing.assert_array_equal(*top)


def test_leaves_of_the_upper_layers_alone_have_their_rates():
  tx = ByDepth(0.5)()
  updates = {'layers': {'w': jnp.ones((3, 2)), 'upper': jnp.ones((2, 2))}, 'critics': {'reward': {'layers': jnp.ones((3,))}}}
  made, _ = tx.update(updates, tx.init(updates))
  np.testing.assert_array_equal(made['layers']['upper'][:, 0], [0.5, 1.0])
  np.testing.assert_array_equal(made['critics']['reward']['layers'], [0.25, 0.5, 1.0])


def test_cut_off_while_layers_wait_and_gone_on_is_as_never_stopped(tmp_path):
  value = tiny_run(tmp_path)
  value = replace(value, model=replace(value.model, layers=2), steps=6, saving=Saving(every=3, keep=9),
                  optimizer=Optimizer(AdamW(1e-2), Constant(), depth=ByDepth(0.5, unfreeze=2)))
  store = Store(tmp_path / 'runs')
  store.make(value)
  made = cut_off(value, store)
  assert load(value, store).step == 3
  store.make(value)
  assert load(value, store).step == 6
  same(load(value, store).params, made)


@pytest.mark.parametrize('make', [lambda: ByDepth(0.0), lambda: ByDepth(1.1), lambda: ByDepth(unfreeze=-1)])
def test_what_is_no_share_or_no_count_is_refused(make):
  with pytest.raises(ConfigError, match=r'config\.out-of-range'):
    make()
