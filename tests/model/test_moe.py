"""The sorted, grouped computation against a loop over tokens, and the router's penalties by hand."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import LogicallyPartitioned

from model import quantize as module
from model.adapt import DoRA, LoRA
from model.adapter_tree import adapters, bases
from model.config import Gated, MoE, Plain
from model.linear import matrix, routed
from model.lowrank import dropped
from model.mlp import activate
from model.moe import Experts, losses, route
from model.quantize import Quantize, quantize
from model.sharding import MeshShape, batch_sharding, shardings, unbox
from tests.kernels.collectives import exchanged
from tests.kernels.lowbit_table import SMALL
from tests.model.variants import small
from train.edits import edited, join

EXPERTS = {'gated': MoE(4, 2, Gated(24)), 'plain': MoE(5, 3, Plain(12, 'relu2'), renormalise=False), 'one': MoE(3, 1, Gated(8))}


def drawn(moe):
  """The layer's parameters, and positions to put through it."""
  config = small(mlp=moe)
  gates = (2,) if isinstance(moe.expert, Gated) else ()
  keys = jax.random.split(jax.random.key(0), 4)
  shapes = {'router': (16, moe.experts), 'up': (moe.experts, 16, *gates, moe.expert.hidden),
            'down': (moe.experts, moe.expert.hidden, 16)}
  params = {name: 0.3 * jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items())}
  return config, params, jax.random.normal(keys[3], (2, 6, 16))


def loop(config, params, x_BLD):
  """Token by token, expert by expert, in NumPy."""
  moe, rows = config.mlp, []
  router, up, down = (np.asarray(params[name]) for name in ('router', 'up', 'down'))
  for x_D in np.asarray(x_BLD).reshape(-1, 16):
    probability_E = np.exp(x_D @ router) / np.exp(x_D @ router).sum()
    best = np.argsort(-probability_E)[:moe.top_k]
    gates = probability_E[best] / (probability_E[best].sum() if moe.renormalise else 1.0)
    rows.append(sum(gate * (hidden(moe.expert, np.tensordot(x_D, up[e], 1)) @ down[e]) for gate, e in zip(gates, best)))
  return np.stack(rows).reshape(x_BLD.shape)


def hidden(expert, h):
  return h[0] / (1 + np.exp(-h[0])) * h[1] if isinstance(expert, Gated) else np.maximum(h, 0) ** 2


@pytest.mark.parametrize('name', EXPERTS)
def test_grouped_experts_equal_a_loop(name):
  config, params, x_BLD = drawn(EXPERTS[name])
  seen = jnp.ones((2, 6), bool)

  def grouped(params):
    return Experts(config, config.mlp).apply({'params': params}, x_BLD, seen)[0]

  @jax.jit
  def both(params):
    gradients = [jax.grad(lambda p, f=f: (f(p) ** 2).sum())(params) for f in (grouped, lambda p: dense(config, p, x_BLD))]
    return grouped(params), gradients

  found, (gradient, expected) = both(params)
  np.testing.assert_allclose(found, loop(config, params, x_BLD), atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradient, expected)


def dense(config, params, x_BLD):
  """All experts on all tokens, weighed by gates that are 0 for most: differentiable and simple."""
  moe = config.mlp
  gates_BLJ, chosen_BLJ = route(x_BLD @ params['router'], moe)
  gates_BLE = (jax.nn.one_hot(chosen_BLJ, moe.experts) * gates_BLJ[..., None]).sum(2)
  h = activate(moe.expert, jnp.einsum('BLD,ED...->BLE...', x_BLD, params['up']))
  return jnp.einsum('BLEF,EFD,BLE->BLD', h, params['down'], gates_BLE)


def test_an_even_router_has_balance_one_and_a_stuck_one_has_e():
  moe = MoE(4, 1, Gated(8), balance=1.0, router_z=1.0)
  seen = jnp.ones((1, 8), bool)
  even = jnp.tile(10.0 * jnp.eye(4), (2, 1))[None]
  stuck = jnp.tile(jnp.array([10.0, 0, 0, 0]), (8, 1))[None]
  for router, expected in ((even, 1.0), (stuck, 4.0)):
    found = losses(router, route(router, moe)[1], seen, moe)
    np.testing.assert_allclose(found['balance'], [expected], atol=1e-2)
    np.testing.assert_allclose(found['router_z'], [100.0], rtol=1e-2)


def test_penalties_of_a_row_ignore_padding_and_other_rows():
  moe = MoE(4, 2, Gated(8))
  router = jax.random.normal(jax.random.key(0), (2, 8, 4))
  seen = jnp.array([[True] * 5 + [False] * 3, [True] * 8])
  both = losses(router, route(router, moe)[1], seen, moe)
  alone = losses(router[:1, :5], route(router[:1, :5], moe)[1], seen[:1, :5], moe)
  for name in both:
    np.testing.assert_allclose(both[name][0], alone[name][0], rtol=1e-5)
  nothing = losses(router, route(router, moe)[1], jnp.zeros((2, 8), bool), moe)
  assert all(np.isfinite(x).all() for x in nothing.values())


def in_few_bits(moe, kind):
  """The layer with experts in few bits, and with the matrices that those stand for."""
  config, params, x_BLD = drawn(moe)
  few = params | {name: quantize(params[name], kind, 1, stacked=1) for name in ('up', 'down')}
  return config, few, params | {name: matrix(few[name], 'float32') for name in ('up', 'down')}, x_BLD


def both(config, params, x_BLD):
  """What the layer makes of positions, and the gradient that they get."""
  seen = jnp.ones(x_BLD.shape[:2], bool)
  y, pull = jax.vjp(lambda x: Experts(config, config.mlp).apply({'params': params}, x, seen)[0], x_BLD)
  return y, pull(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))[0]


def close(got, expected):
  for value, true in zip(got, expected, strict=True):
    np.testing.assert_allclose(value, true, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name, kind', [('gated', 'nf4'), ('plain', 'int8')])
def test_experts_in_few_bits_are_the_experts_they_stand_for(name, kind, monkeypatch):
  """By one matrix at a time, and by the kernel, interpreted."""
  from kernels.lowbit import Choice
  from kernels.lowbit_grouped import lowbit_grouped
  config, few, many, x_BLD = in_few_bits(MoE(4, 2, Gated(128)) if name == 'gated' else EXPERTS[name], kind)
  expected = jax.jit(partial(both, config))(many, x_BLD)
  close(jax.jit(partial(both, config))(few, x_BLD), expected)
  if kind == 'int8':
    asked = []
    monkeypatch.setattr(module, 'choose', lambda call: asked.append(call) or Choice('grouped', {}))
    monkeypatch.setattr(module, 'lowbit_grouped', partial(lowbit_grouped, interpret=True, tiles=SMALL))
    close(jax.jit(partial(both, config))(few, x_BLD), expected)
    assert {(call.rows, call.groups, call.block) for call in asked} == {(36, 5, 16), (36, 5, 12)}


NAMES = {'router': ('layers', 'embed', 'routes'), 'up': ('layers', 'experts', 'embed', 'gates', 'mlp'),
         'down': ('layers', 'experts', 'mlp', 'embed')}


@pytest.mark.parametrize('hidden, kind, gathered', [(256, 'nf4', {('u8', (3, 32, 16))}),
                                                    (24, 'int8', {('s8', (3, 16, 2, 6)), ('s8', (3, 6, 16))}),
                                                    (64, 'nf4', None)])
def test_on_a_mesh_codes_of_experts_are_gathered_where_no_block_is_cut(hidden, kind, gathered):
  """Along fsdp, as they lie, a quarter of them still. Of one block for four devices matrices are made: the numbers alone."""
  config, params, x_BLD = drawn(MoE(3, 2, Gated(hidden)))
  boxed = Quantize(kind)({'layers': {'mlp': {name: LogicallyPartitioned(w[None], NAMES[name]) for name, w in params.items()}}},
                         jax.random.key(0))

  def run(boxed, x_BLD):
    return both(config, jax.tree.map(lambda w: w[0], unbox(boxed)['layers']['mlp']), x_BLD)

  x_BLD, mesh = jnp.concatenate([x_BLD, x_BLD + 1]), MeshShape(fsdp=2, tensor=4).build()
  expected = jax.jit(run)(boxed, x_BLD)
  with jax.set_mesh(mesh):
    given = shardings(boxed, mesh), batch_sharding(mesh)
    made = jax.jit(run, in_shardings=given, out_shardings=given[1]).lower(unbox(boxed), x_BLD).compile()
    close(made(*jax.device_put((unbox(boxed), x_BLD), given)), expected)
  if gathered is not None:
    found = {each for each in exchanged(made.as_text()) if each.kind == 'all-gather'}
    assert {(each.dtype, tuple(n for n in each.shape if n > 1)) for each in found if each.dtype != 'f32'} == gathered
    assert max(math.prod(each.shape) for each in found if each.dtype == 'f32') <= 4 * 6 * 3, found   # the router's, and steps


def test_no_more_than_one_expert_is_in_many_bits_at_once():
  """Compiled, in both passes, of 16 experts; the control makes them all."""
  config, few, _, x_BLD = in_few_bits(MoE(16, 2, Gated(256)), 'nf4')

  def temporaries(made) -> int:
    run = jax.jit(lambda few, x: both(config, few | {name: made(few[name]) for name in ('up', 'down')}, x))
    return run.lower(few, x_BLD[:1]).compile().memory_analysis().temp_size_in_bytes

  largest = 4 * 16 * 2 * 256
  alone, control = temporaries(lambda w: w), temporaries(lambda w: matrix(w, 'float32'))
  assert alone < 8 * largest < 16 * largest < control, (alone / largest, control / largest)


DORA = LoRA(2), DoRA()


def adapted(moe, edits):
  """The layer with experts after these edits, boxed, as if their adapters had learned something."""
  config, params, x_BLD = drawn(moe)
  tree = {'layers': {'mlp': {name: LogicallyPartitioned(w[None], NAMES[name][:w.ndim] + NAMES[name][-1:])
                             for name, w in params.items()}}}
  tree = edited(edits, tree, jax.random.key(1))

  def move(path, leaf):
    learns = any(getattr(part, 'name', None) in ('a', 'b', 'magnitudes') for part in path)
    return leaf + 0.1 * jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape) if learns else leaf

  return config, jax.tree_util.tree_map_with_path(move, tree), x_BLD


def layer(boxed):
  return jax.tree.map(lambda w: w[0], unbox(boxed)['layers']['mlp'])


def learning(config, made, params, x_BLD):
  """What the layer makes of positions when `made` is made of its experts, and the gradients of adapters and positions."""
  base, seen = {'base': bases(params)}, jnp.ones(x_BLD.shape[:2], bool)

  def total(learned, x_BLD):
    params = {name: w if name == 'router' else made(w) for name, w in join(learned, base).items()}
    y = Experts(config, config.mlp).apply({'params': params}, x_BLD, seen)[0]
    return (y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)).sum(), y

  gradients, y = jax.grad(total, (0, 1), has_aux=True)(adapters(params), x_BLD)
  return y, *jax.tree.leaves(gradients)


def as_it_is(w):
  return w


def worked_out(w):
  return matrix(w, 'float32')


@pytest.mark.parametrize('name, edits, leaves', [('gated', (Quantize(), *DORA), 2 + 3 + 3), ('plain', DORA, 2 + 2 + 2),
                                                 ('gated', (Quantize('int8'), LoRA(2, targets=('up', 'down'))), 2 + 2)])
def test_adapted_experts_are_the_experts_they_stand_for(name, edits, leaves):
  """Over few bits and over arrays, all parts and some: values, and the gradients of all that learns."""
  config, boxed, x_BLD = adapted(EXPERTS[name], edits)
  got, expected = (jax.jit(partial(learning, config, made))(layer(boxed), x_BLD) for made in (as_it_is, worked_out))
  assert len(got) == 2 + leaves and all(float(jnp.abs(each).max()) > 1e-3 for each in got)
  for value, true in zip(got, expected, strict=True):
    np.testing.assert_allclose(value, true, rtol=1e-4, atol=1e-5 * max(1, float(jnp.abs(true).max())))


def test_experts_drop_their_adapters_input_as_other_matrices_do():
  """By a leaf with a key, which no edit lays over experts yet."""
  w = layer(adapted(EXPERTS['plain'], (LoRA(2),))[1])['down']
  w = replace(w, dropout=0.5, seeds=jax.random.key_data(jax.random.key(2)))
  x_RI, sizes_E = jax.random.normal(jax.random.key(3), (20, 12)), jnp.asarray([3, 0, 9, 6, 2])
  made = routed(w, (None, 'mlp', None), 'float32')
  low = np.repeat(matrix(w, 'float32') - w.base, sizes_E, 0)
  expected = np.einsum('RI,RIO->RO', x_RI, np.repeat(w.base, sizes_E, 0)) + np.einsum('RI,RIO->RO', dropped(w, x_RI), low)
  np.testing.assert_allclose(made.times(x_RI, sizes_E, *made.arrays), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['nf4', None])
def test_no_more_than_one_adapted_expert_is_there_at_once(kind):
  """Compiled, in both passes, of 16 experts; the control makes them all. Nor does the base get a gradient to be thrown away."""
  config, boxed, x_BLD = adapted(MoE(16, 2, Gated(256)), (*((Quantize(kind),) if kind else ()), LoRA(1), DoRA()))

  def temporaries(made) -> int:
    run = jax.jit(partial(learning, config, made)).lower(layer(boxed), x_BLD[:1]).compile()
    return run.memory_analysis().temp_size_in_bytes

  largest = 4 * 16 * 2 * 256
  alone, control = temporaries(as_it_is), temporaries(worked_out)
  assert alone < 16 * largest < 48 * largest < control, (alone / largest, control / largest)


def test_on_a_mesh_adapted_experts_gather_codes_and_what_is_small():
  """With inputs and outputs cut: a column's length is that of the whole."""
  config, boxed, x_BLD = adapted(MoE(3, 2, Gated(256)), (Quantize(), *DORA))

  def run(params, x_BLD):
    return learning(config, as_it_is, layer(params), x_BLD)

  x_BLD, mesh = jnp.concatenate([x_BLD, x_BLD + 1]), MeshShape(fsdp=2, tensor=4).build()
  expected = jax.jit(run)(unbox(boxed), x_BLD)
  with jax.set_mesh(mesh):
    given = shardings(boxed, mesh), batch_sharding(mesh)
    made = jax.jit(run, in_shardings=given).lower(unbox(boxed), x_BLD).compile()
    got = made(*jax.device_put((unbox(boxed), x_BLD), given))
  for value, true in zip(got, expected, strict=True):
    np.testing.assert_allclose(value, true, rtol=1e-3, atol=1e-4 * max(1, float(jnp.abs(true).max())))
  found = {each for each in exchanged(made.as_text()) if each.kind == 'all-gather'}
  assert {each.dtype for each in found} == {'u8', 'f32'}
  assert max(math.prod(each.shape) for each in found if each.dtype == 'f32') < 3 * 16 * 64, found      # a quarter of a matrix
