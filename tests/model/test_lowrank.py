"""Adapters: nothing at the start, the sum that they stand for, merged as apart, and by the parts of fused matrices."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.adapt import DoRA, LoRA, Merge
from model.adapter_tree import adapters, bases, detach, keyed, largest_change, merge
from model.config import Compute
from model.errors import ConfigError
from model.kinds import kinds
from model.linear import dense, is_weight, matrix
from model.lowrank import LowRank
from model.quantize import Quantize, Quantized, dequantize
from model.sharding import MeshShape, shardings, unbox
from tests.model.variants import VARIANTS, made, small, tokens
from train.edits import edited, join

KEY = jax.random.key(0)
LORA = (LoRA(2, alpha=6.0),)
DORA = (*LORA, DoRA())
EDITS = {'lora': LORA, 'fused': (LoRA(2, targets=('qkv', 'gate_up')),), 'some': (LoRA(2, targets=('k', 'down')),),
         'dora': DORA, 'some-dora': (LoRA(2, targets=('v', 'up')), DoRA()), 'qlora': (Quantize(), *LORA),
         'qdora': (Quantize(), *DORA), 'int8': (Quantize('int8'), *LORA)}


def learned(params, seed=5):
  """The tree as if its adapters had learned something."""
  def move(path, leaf):
    moved = [part for part in path if getattr(part, 'name', None) in ('a', 'b', 'magnitudes')]
    number = sum(map(ord, jax.tree_util.keystr(path)))
    return leaf + 0.1 * jax.random.normal(jax.random.fold_in(jax.random.key(seed), number), leaf.shape) if moved else leaf

  return jax.tree_util.tree_map_with_path(move, params)


def logits(model):
  return jax.jit(lambda params, tokens_BL, segments_BL=None: model.logits(
    params, model.hidden(params, tokens_BL, segments_BL).x_BLD))


def leaf(params, *names):
  for name in names:
    params = params[name]
  return params


@pytest.mark.parametrize('name', VARIANTS)
def test_before_its_first_step_an_adapted_model_is_its_base_to_the_bit(name):
  """Operation by operation: in one program XLA may fuse what follows a sum otherwise, and move a last bit."""
  model, params = made(VARIANTS[name])

  def run(params):
    with jax.disable_jit():
      return np.asarray(model.logits(params, model.hidden(params, tokens(1, 8)).x_BLD))

  base = run(params)
  for edits in (LORA, DORA):
    begun = edited(edits, params, KEY)
    np.testing.assert_array_equal(run(begun), base)
  assert np.abs(run(learned(begun)) - base).max() > 1e-3      # negative control


@pytest.mark.parametrize('edits', ['qlora', 'qdora', 'int8', 'fused', 'some-dora'])
def test_so_is_one_over_few_bits_or_by_other_parts(edits):
  model, params = made(VARIANTS['llama'])
  run = logits(model)
  begun = edited(EDITS[edits], params, KEY)
  np.testing.assert_array_equal(run(begun, tokens()), run(detach(begun), tokens()))


@pytest.mark.parametrize('scaling, scale', [('rank', 6 / 4), ('sqrt', 6 / 2)])
def test_what_an_adapter_adds(scaling, scale):
  """The sum, written out with NumPy, of one matrix of each kind; and how A begins."""
  _, params = made(VARIANTS['llama'])
  begun = edited((LoRA(4, alpha=6.0, scaling=scaling),), params, KEY)
  for names, parts in [(('attention', 'qkv', 'weight'), ('q', 'k', 'v')), (('mlp', 'up', 'weight'), ('gate', 'up'))]:
    w = leaf(begun, 'layers', *names)
    assert w.scale == pytest.approx(scale) and w.a.shape == (2, 16, len(parts), 4) and w.a.dtype == jnp.float32
    assert all((np.asarray(b) == 0).all() for b in w.b.values()) and set(w.b) == set(parts)
    assert 0.9 / 4 < np.abs(np.asarray(w.a)).max() <= 1 / math.sqrt(16)
    w = jax.tree.map(lambda x: x[0], leaf(learned(begun), 'layers', *names))
    x = jax.random.normal(KEY, (3, 16))
    wanted = np.tensordot(x, w.base, 1)
    at = 0
    for i, part in enumerate(parts):
      added = scale * np.tensordot(np.asarray(x) @ w.a[:, i], w.b[part], 1)
      size = added.shape[w.spans[0].axis + 1]
      where = (slice(None),) * (w.spans[0].axis + 1) + (slice(at, at + size),)
      wanted[where] += added
      at += size
    np.testing.assert_allclose(dense(x, w), wanted, rtol=1e-4, atol=1e-5)
  out = leaf(begun, 'layers', 'attention', 'out', 'weight')
  assert out.a.shape == (2, 4, 8, 1, 4) and np.abs(np.asarray(out.a)).max() <= 1 / math.sqrt(32)


def test_parts_have_an_a_each_and_a_fused_matrix_one():
  _, params = made(VARIANTS['llama'])
  parts = leaf(edited((LoRA(2),), params, KEY), 'layers', 'attention', 'qkv', 'weight')
  fused = leaf(edited((LoRA(2, targets=('qkv',)),), params, KEY), 'layers', 'attention', 'qkv', 'weight')
  assert {part: b.shape for part, b in parts.b.items()} == {'q': (2, 2, 2, 2, 8), 'k': (2, 2, 2, 1, 8), 'v': (2, 2, 2, 1, 8)}
  assert fused.a.shape[-2] == 1 and fused.b['qkv'].shape == (2, 2, 2, 4, 8)
  a = np.asarray(parts.a)
  assert not np.allclose(a[..., 0, :], a[..., 1, :]) and not np.allclose(a[0], a[1])


def test_the_parts_of_a_plain_mlp_and_the_names_that_no_model_has():
  _, params = made(VARIANTS['gpt2'])
  up = leaf(edited((LoRA(2),), params, KEY), 'layers', 'mlp', 'up', 'weight')
  assert list(up.b) == ['up'] and up.b['up'].shape == (2, 2, 32)
  with pytest.raises(ConfigError) as caught:
    edited((LoRA(2, targets=('gate',)),), params, KEY)
  assert caught.value.id == 'edit.nothing'


@pytest.mark.parametrize('name', ['llama', 'mixtral', *(pytest.param(name, marks=pytest.mark.campaign)
                                                       for name in ('gemma2', 'gpt2', 'olmoe', 'bfloat16'))])
@pytest.mark.parametrize('edits', [LORA, DORA], ids=['lora', 'dora'])
def test_merged_is_as_adapted(name, edits):
  model, params = made(VARIANTS[name])
  begun = learned(edited(edits, params, KEY))
  merged = merge(begun)
  assert jax.tree.map(lambda w: (w.shape, w.dtype), merged) == jax.tree.map(lambda w: (w.shape, w.dtype), params)
  close = 0.2 if name == 'bfloat16' else 2e-4
  change = jax.jit(partial(largest_change, model))
  assert float(change(begun, merged, tokens())) < close
  assert float(change(begun, params, tokens())) > 1.0       # negative control


def test_the_columns_of_dora_are_as_long_as_it_says():
  """Liu et al. 2024: m * V / |V|, and the gradient takes |V| for a constant."""
  _, params = made(VARIANTS['llama'])
  for edits in (DORA, (Quantize(), *DORA)):
    w = jax.tree.map(lambda x: x[0], leaf(learned(edited(edits, params, KEY)), 'layers', 'mlp', 'down', 'weight'))
    m = w.magnitudes['down']
    plain = np.asarray(matrix(replace(w, magnitudes=None, squares=None), jnp.float32))
    np.testing.assert_allclose(matrix(w, jnp.float32), m * plain / np.linalg.norm(plain, axis=0), rtol=2e-4, atol=1e-5)
    x = jax.random.normal(KEY, (5, 24))
    found = jax.grad(lambda b, w=w, x=x: dense(x, replace(w, b={'down': b})).sum())(w.b['down'])
    gain = np.asarray(m / np.linalg.norm(plain, axis=0))
    wanted = w.scale * np.outer((np.asarray(x) @ w.a[:, 0]).sum(0), gain)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_merging_into_few_bits_is_refused_and_a_dequantised_copy_is_not():
  model, params = made(VARIANTS['llama'])
  begun = learned(edited((Quantize(), *LORA), params, KEY))
  with pytest.raises(ConfigError, match='dequantise=True') as caught:
    merge(begun)
  assert caught.value.id == 'edit.merge-quantised'
  merged = merge(begun, dequantise=True)
  assert all(w.dtype == jnp.float32 for w in jax.tree.leaves(merged))
  assert float(jax.jit(partial(largest_change, model))(begun, merged, tokens())) < 1e-4


@pytest.mark.parametrize('layers', ['scan', 'unroll'])
@pytest.mark.parametrize('edits', ['lora', 'qdora'])
def test_packed_and_cached_with_adapters_on(edits, layers):
  """Two documents in a row are as each alone; token after token from a cache, over laid-out weights, as the whole row."""
  from model.decoder import laid_out
  model, params = made(VARIANTS['gemma2'], Compute(layers=layers))
  params = learned(edited(EDITS[edits], params, KEY))
  run, row = logits(model), tokens(2, 10)
  alone = np.asarray(run(params, row[:, :6]))
  packed = run(params, row, jnp.array([[1] * 6 + [2] * 4] * 2))
  np.testing.assert_allclose(packed[:, :6], alone, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(packed[:, 6:], run(params, row[:, 6:]), rtol=1e-4, atol=1e-4)
  ready, cache = laid_out(model.config, params), model.cache(2, 16)
  read = jax.jit(lambda ready, ids, cache: model.hidden(ready, ids, None, cache))
  said = []
  for i in range(6):
    hidden = read(ready, row[:, i:i + 1], cache)
    cache = hidden.cache
    said.append(model.logits(ready, hidden.x_BLD))
  np.testing.assert_allclose(jnp.concatenate(said, 1), alone, rtol=1e-4, atol=1e-4)


def test_a_step_over_few_bits_is_one_over_the_dequantised_base():
  model, params = made(VARIANTS['llama'])
  few = learned(edited((Quantize(), *LORA), params, KEY))
  many = jax.tree.map(lambda w: dequantize(w) if isinstance(w, Quantized) else w, few,
                      is_leaf=lambda w: isinstance(w, Quantized))

  def slope(params):
    frozen = {'base': bases(params)}
    return jax.jit(jax.grad(lambda p: jnp.square(model.hidden(join(p, frozen), tokens()).x_BLD).sum()))(adapters(params))

  first, second = slope(few), slope(many)
  assert len(jax.tree.leaves(first)) == 4 * 2 + 3
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), first, second)
  assert all(float(jnp.abs(g).max()) > 1e-3 for g in jax.tree.leaves(first))


def test_adapters_and_base_are_the_tree_and_share_it():
  _, params = made(VARIANTS['llama'])
  begun = edited(DORA, params, KEY)
  taken, base = adapters(begun), bases(begun)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), join(taken, {'base': base}), begun)
  assert not {id(x) for x in jax.tree.leaves(taken)} & {id(x) for x in jax.tree.leaves(base)}
  same = jax.tree.map(lambda a, b: a is b, detach(begun), params)
  assert all(jax.tree.leaves(same))
  kind = [part for path, _ in jax.tree_util.tree_leaves_with_path(taken) for part in path if hasattr(part, 'name')]
  assert {part.name for part in kind} == {'a', 'b', 'magnitudes'}


def test_dropout_is_of_the_adapters_input_and_only_with_a_key():
  model, params = made(VARIANTS['llama'])
  begun = learned(edited((LoRA(2, dropout=0.5),), params, KEY))
  run = logits(model)
  plain = learned(edited((LoRA(2),), params, KEY))
  np.testing.assert_array_equal(run(begun, tokens()), run(plain, tokens()))
  first, again, other = (run(keyed(begun, jax.random.key(i)), tokens()) for i in (1, 1, 2))
  np.testing.assert_array_equal(first, again)
  assert float(jnp.abs(first - other).max()) > 1e-3
  w = jax.tree.map(lambda x: x[0], leaf(keyed(begun, KEY), 'layers', 'mlp', 'down', 'weight'))
  x = jnp.ones((4000, 24))
  mean, wanted = (dense(x, each) - x @ w.base for each in (w, replace(w, seeds=None)))
  np.testing.assert_allclose(mean.mean(0), wanted.mean(0), atol=0.1 * float(jnp.abs(wanted).max()))
  seeds = leaf(keyed(begun, KEY), 'layers', 'mlp', 'down', 'weight').seeds
  assert (np.asarray(seeds[0]) != np.asarray(seeds[1])).any()
  begun = learned(edited((LoRA(2),), params, KEY))
  assert jax.tree.structure(keyed(begun, KEY)) == jax.tree.structure(begun)


@pytest.mark.parametrize('edits', ['lora', 'dora', 'qlora', 'qdora', 'some-dora'])
@pytest.mark.parametrize('name', ['mixtral', *(pytest.param(name, marks=pytest.mark.campaign) for name in ('llama', 'gpt2'))])
def test_boxed_and_plain_trees_are_edited_alike(name, edits):
  model, params = made(VARIANTS[name])
  boxed = jax.eval_shape(lambda key: edited(EDITS[edits], model.init(key), key), KEY)
  plain = jax.eval_shape(lambda params: edited(EDITS[edits], params, KEY), params)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), unbox(boxed)) == jax.tree.map(lambda x: (x.shape, x.dtype), plain)
  assert set(jax.tree.leaves(kinds(adapters(boxed)))) <= {'adapter', 'vector'}       # nothing that decays


@pytest.mark.parametrize('edits', ['lora', 'qdora'])
def test_a_mesh_changes_nothing(edits):
  config = small(width=128, mlp=VARIANTS['llama'].mlp)
  model, params = made(config)
  begun = learned(edited(EDITS[edits], params, KEY))
  whole = logits(model)(begun, tokens())
  grid = MeshShape(fsdp=2, tensor=2, data=2).build()
  with jax.set_mesh(grid):
    places = shardings(jax.eval_shape(lambda key: edited(EDITS[edits], model.init(key), key), KEY), grid)
    cut = jax.device_put(begun, places)
    a = leaf(cut, 'layers', 'attention', 'qkv', 'weight').a
    assert a.sharding.shard_shape(a.shape) == (2, 64, 3, 2)
    np.testing.assert_allclose(logits(model)(cut, tokens()), whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('edits, id', [
  ((LoRA(2), LoRA(2)), 'edit.twice'), ((DoRA(),), 'edit.nothing'), ((Quantize(), LoRA(2), Merge()), 'edit.merge-quantised')])
def test_orders_that_make_no_sense_are_refused(edits, id):
  with pytest.raises(ConfigError) as caught:
    edited(edits, made(VARIANTS['llama'])[1], KEY)
  assert caught.value.id == id


@pytest.mark.parametrize('fields, id', [
  ({'rank': 0}, 'config.out-of-range'), ({'dropout': 1.0}, 'config.out-of-range'), ({'targets': ('qkv', 'q')}, 'edit.twice')])
def test_adapters_that_make_no_sense_are_refused(fields, id):
  with pytest.raises(ConfigError) as caught:
    LoRA(**fields)
  assert caught.value.id == id


def test_experts_are_adapted_each_for_itself_and_without_dropout():
  _, params = made(VARIANTS['mixtral'])
  up = leaf(edited((LoRA(2),), params, KEY), 'layers', 'mlp', 'up')
  assert isinstance(up, LowRank) and up.a.shape == (2, 4, 16, 2, 2) and is_weight(up)
  with pytest.raises(ConfigError, match='experts'):
    edited((LoRA(2, dropout=0.1),), params, KEY)
