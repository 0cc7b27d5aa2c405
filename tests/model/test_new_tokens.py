"""Rows for new tokens: means of the old ones, in every table that has an entry a token, boxed as plain."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align.critic import Critic
from model.adapt import LoRA, Merge
from model.config import Transformed
from model.decoder import build
from model.errors import ConfigError
from model.new_tokens import NewTokens, newest
from model.sharding import is_box, unbox
from model.sizes import llama

TIED = llama(40, 16, 2, 2)
CONFIGS = {'tied': replace(TIED, tied=True), 'untied': replace(TIED, tied=False),
           'biased': replace(TIED, tied=True, head=Transformed('gelu'), causal=False)}
KEY = jax.random.key(0)


def drawn(config):
  params = unbox(build(config).init(KEY))
  leaves, tree = jax.tree.flatten(params)
  moved = [leaf + 0.1 * jax.random.normal(jax.random.key(i), leaf.shape) for i, leaf in enumerate(leaves)]
  return jax.tree.unflatten(tree, moved)


def logits(config, params, tokens_BL):
  model = build(config)
  return np.asarray(jax.jit(lambda params: model.logits(params, model.hidden(params, tokens_BL).x_BLD))(params))


@pytest.mark.parametrize('kind', CONFIGS)
def test_old_tokens_keep_their_logits_and_new_ones_have_the_mean(kind):
  config, edit = CONFIGS[kind], NewTokens(3)
  params, tokens_BL = drawn(config), jax.random.randint(KEY, (2, 8), 0, 40)
  before, after = logits(config, params, tokens_BL), logits(edit.model(config), edit(params, KEY), tokens_BL)
  assert after.shape[-1] == 43 and jax.tree.map(jnp.shape, edit(params, KEY)) == jax.tree.map(
      jnp.shape, unbox(jax.eval_shape(build(edit.model(config)).init, KEY)))
  np.testing.assert_allclose(after[..., :40], before, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(after[..., 40:], np.repeat(before.mean(-1, keepdims=True), 3, -1), rtol=1e-4, atol=1e-5)
  old, new = (np.exp(each - each.max(-1, keepdims=True)) for each in (before, after))
  old, new = old / old.sum(-1, keepdims=True), new / new.sum(-1, keepdims=True)
  divergence = (old * (np.log(old) - np.log(new[..., :40]))).sum(-1)
  assert 0 < divergence.max() <= np.log1p(3 / 40) + 1e-6


def test_padded_tables_give_their_spare_rows_first():
  params = drawn(CONFIGS['untied'])
  known = params['embedding']['table'][:36]
  for edit, size in ((NewTokens(3, spare=4), 40), (NewTokens(6, spare=4), 42)):
    made = edit(params, KEY)
    table = made['embedding']['table']
    assert edit.model(CONFIGS['untied']).vocab == size == len(table) == made['head']['weight'].shape[1]
    np.testing.assert_array_equal(table[:36], known)
    np.testing.assert_allclose(table[36:36 + edit.count], np.tile(known.mean(0), (edit.count, 1)), rtol=1e-5)
    if edit.count == 3:
      np.testing.assert_array_equal(table[39], params['embedding']['table'][39])


@pytest.mark.parametrize('kind', CONFIGS)
def test_a_boxed_tree_gives_the_same_with_its_names(kind):
  boxed = build(CONFIGS[kind]).init(KEY)
  made = NewTokens(2)(boxed, KEY)
  jax.tree.map(np.testing.assert_array_equal, unbox(made), NewTokens(2)(unbox(boxed), KEY))
  assert made['embedding']['table'].names == ('rows', 'width') and all(map(is_box, jax.tree.leaves(made, is_leaf=is_box)))


def test_the_newest_rows_are_counted_until_adapters_are_merged():
  assert newest((NewTokens(3), LoRA(2))) == 3
  assert newest((NewTokens(3), LoRA(2), NewTokens(2))) == 5
  assert newest((NewTokens(3, spare=8), LoRA(2), NewTokens(6, spare=5))) == 9
  assert newest((NewTokens(3), LoRA(2), Merge(), LoRA(2))) == newest(()) == 0


def test_nothing_beside_the_model_is_left_with_smaller_tables():
  params = Critic()(drawn(TIED), KEY)
  with pytest.raises(ConfigError, match=r'edit\.order'):
    NewTokens(2)(params, KEY)
  NewTokens(2)(Critic()(LoRA(2)(drawn(TIED), KEY), KEY), KEY)
  for wrong in ({'count': 0}, {'count': 1, 'spare': -1}):
    with pytest.raises(ConfigError):
      NewTokens(**wrong)
