"""Weights in few bits: what a level is, what is stored, how far the numbers move, and what a pass over them keeps."""

import math
from functools import partial
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import LogicallyPartitioned

from model.adapt import LoRA
from model.config import Gated
from model.errors import ConfigError
from model.levels import LEVELS, NF4, Doubled, double, nearest, pack, unpack
from model.linear import dense, matrix
from model.mlp import MLP
from model.quantize import Quantize, Quantized, dequantize, quantize
from model.sharding import MeshShape, batch_sharding, shardings, unbox
from tests.kernels.collectives import exchanged
from tests.kernels.lowbit_table import SMALL
from tests.model.variants import VARIANTS, made, small, tokens

KEY = jax.random.key(0)
KINDS = ('nf4', 'int4', 'int8')
rounded, restored = jax.jit(quantize, static_argnames=('kind', 'inputs', 'stacked')), jax.jit(dequantize)
WIDEST = 1 - 0.6961928009986877       # the gap between the two lowest levels of nf4


def normal(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def test_the_levels_are_the_quantiles_of_the_paper():
  """Dettmers et al. 2023, appendix E: 8 and 9 even steps of probability on either side of zero, the largest made 1."""
  quantile, outer = NormalDist().inv_cdf, 0.9677083
  up = [quantile(p) for p in np.linspace(outer, 0.5, 9)[:-1]]
  down = [-quantile(p) for p in np.linspace(outer, 0.5, 8)[:-1]]
  np.testing.assert_allclose(sorted([*up, 0.0, *down]) / np.max(up), NF4, atol=1e-6)
  known = [-1, -.696193, -.525073, -.394917, -.284441, -.184773, -.091050, 0, .079580, .160930, .246112, .337915, .440710,
           .562617, .722957, 1]
  np.testing.assert_allclose(NF4, known, atol=6e-7)


def test_the_bits_of_a_weight_are_all_that_is_stored():
  w = normal(512, 512)
  assert rounded(w, 'nf4', 1).bits == pytest.approx(4 + 8 / 64 + 32 / (64 * 256) + 32 / w.size)
  assert round(rounded(w, 'nf4', 1).bits, 3) == 4.127
  assert rounded(w, 'int4', 1).bits == 4.5 and rounded(w, 'int8', 1).bits == 8 + 32 / 512


@pytest.mark.parametrize('kind', KINDS)
def test_every_level_comes_back_as_itself(kind):
  levels = {'nf4': LEVELS['nf4'], 'int4': LEVELS['int4'][1:], 'int8': np.arange(-127, 128) / 127}[kind]
  w = jnp.asarray(np.resize(levels, (256, 1)), jnp.float32) * 3
  np.testing.assert_allclose(restored(rounded(w, kind, 1)), w, rtol=1e-6)


def test_the_nearest_level_by_midpoint():
  x = np.linspace(-1, 1, 10_001, dtype=np.float32)
  by_distance = np.abs(x[:, None].astype(np.float64) - np.array(NF4)).argmin(1)
  assert (np.asarray(nearest(x, 'nf4')) == by_distance).all()


@pytest.mark.parametrize('size', [64, 256, 20, 100, 7, 1])
@pytest.mark.parametrize('kind', KINDS)
def test_errors_are_within_half_a_gap_of_each_block(kind, size):
  """Also where the inputs do not divide into blocks. The scale of nf4 is off by half a step of its own at most."""
  w = normal(size, 5) * jnp.exp(normal(5, seed=1))
  q = rounded(w, kind, 1)
  block = size if kind == 'int8' else 64
  error, bound = np.abs(np.asarray(restored(q) - w)), {'nf4': WIDEST / 2, 'int4': 0.5 / 7, 'int8': 0.5 / 127}[kind]
  step = float(q.scales.steps.max()) / 2 if isinstance(q.scales, Doubled) else 0.0
  for begin in range(0, size, block):
    part = slice(begin, begin + block)
    largest = np.abs(np.asarray(w[part])).max(0)
    assert (error[part] <= bound * (largest + step) + step + 1e-6).all()


def test_normal_numbers_lose_less_than_by_even_levels():
  w = normal(1024, 64)
  nf4, int4, int8 = (float(jnp.square(restored(rounded(w, kind, 1)) - w).mean()) for kind in KINDS)
  assert int8 < nf4 < 0.8 * int4


@pytest.mark.parametrize('kind', KINDS)
def test_zero_stays_zero_and_a_block_of_zeros_is_no_trouble(kind):
  w = normal(128, 4).at[:64].set(0.0).at[70].set(0.0)
  back = np.asarray(restored(rounded(w, kind, 1)))
  assert np.isfinite(back).all() and (back[:64] == 0).all() and (back[70] == 0).all() and (back[64:70] != 0).any()
  assert (np.asarray(restored(rounded(jnp.zeros((64, 4)), kind, 1))) == 0).all()


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_packing_is_undone(axis):
  codes = jax.random.randint(KEY, (4, 6, 8), 0, 16).astype(jnp.uint8)
  packed = pack(codes, axis)
  assert packed.shape[axis] == codes.shape[axis] // 2 and packed.dtype == jnp.uint8
  np.testing.assert_array_equal(unpack(packed, axis), codes)


def test_the_first_of_two_codes_is_in_the_high_half():
  assert pack(jnp.array([1, 2, 15, 0], jnp.uint8), 0).tolist() == [0x12, 0xf0]


def test_scales_in_eight_bits_are_near_and_never_below_zero():
  scales = jnp.abs(normal(3, 100, 7)).at[0, 0, 0].set(100.0)      # one of them makes the steps of its group coarse
  doubled = double(scales, 1)
  step = np.repeat(np.asarray(doubled.steps), 256, -1)[:, :700].reshape(3, 100, 7)
  value = np.asarray(doubled.value)
  assert (value >= 0).all() and (np.abs(value - scales) <= step / 2 + 1e-5).all()
  assert doubled.steps.shape == (3, 3) and (doubled.steps[0, 0] > 10 * doubled.steps[1:]).all()


@pytest.mark.parametrize('kind', KINDS)
def test_stacked_matrices_are_quantised_each_for_itself(kind):
  w = normal(3, 2, 8, 16, 5) * jnp.array([1.0, 10.0, 0.1])[:, None, None, None, None]
  whole = rounded(w, kind, 2, stacked=2)
  assert whole.shape == w.shape and restored(whole).shape == w.shape
  for i in range(3):
    alone = rounded(w[i, 1], kind, 2)
    np.testing.assert_array_equal(whole.codes[i, 1], alone.codes)
    jax.tree.map(lambda both, one, i=i: np.testing.assert_allclose(both[i, 1], one, rtol=1e-6), whole, alone)


@pytest.mark.parametrize('kind, mesh', zip(KINDS, (MeshShape(data=2, fsdp=4), MeshShape(fsdp=2, tensor=4),
                                                   MeshShape(fsdp=4, tensor=2))))
def test_a_sharded_tree_is_quantised_as_the_whole(kind, mesh):
  """And a block lies on one device: the dimensions within it are whole."""
  config = small(width=256, attention=VARIANTS['llama'].attention)
  model, params = made(config)
  whole = jax.jit(Quantize(kind))(params, KEY)
  grid = mesh.build()
  with jax.set_mesh(grid):
    boxed = jax.eval_shape(lambda key: Quantize(kind)(model.init(key), key), KEY)
    places = shardings(boxed, grid)
    plain = shardings(jax.eval_shape(model.init, KEY), grid)
    cut = jax.jit(Quantize(kind), out_shardings=places)(jax.device_put(params, plain), KEY)
  assert jax.tree.structure(cut) == jax.tree.structure(whole) == jax.tree.structure(unbox(boxed))
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), cut, whole)
  qkv = cut['layers']['attention']['qkv']['weight'].codes
  assert qkv.sharding.shard_shape(qkv.shape) != qkv.shape
  if kind != 'int8':
    assert qkv.sharding.shard_shape(qkv.shape)[2] == qkv.shape[2]


@pytest.mark.parametrize('kind', KINDS)
def test_the_forward_pass_multiplies_by_what_is_stored(kind):
  w, x = normal(4, 16, 3, 5), normal(2, 6, 4, 16, seed=1)
  q = rounded(w, kind, 2)
  np.testing.assert_allclose(dense(x, q, inputs=2), jnp.tensordot(x, restored(q), 2), rtol=1e-5, atol=1e-5)
  g = normal(2, 6, 3, 5, seed=2)
  _, pull = jax.vjp(lambda x: dense(x, q, inputs=2), x)
  np.testing.assert_allclose(pull(g)[0], jnp.tensordot(g, restored(q), ((2, 3), (2, 3))), rtol=1e-5, atol=1e-5)
  assert dense(x.astype(jnp.bfloat16), q, inputs=2, dtype='bfloat16').dtype == jnp.bfloat16


@pytest.mark.parametrize('kind', KINDS)
def test_where_a_kernel_can_it_multiplies_by_the_codes(kind, monkeypatch):
  """Interpreted, of several dimensions in and out, also below an adapter, and where the last block is cut short."""
  from kernels.lowbit import Choice, lowbit
  from model import quantize as module
  w, x, g = normal(4, 25, 3, 5), normal(2, 6, 4, 25, seed=1), normal(2, 6, 3, 5, seed=2)
  q = rounded(w, kind, 2)
  asked = []
  monkeypatch.setattr(module, 'choose', lambda call: asked.append(call) or Choice('few', {}))
  monkeypatch.setattr(module, 'lowbit', partial(lowbit, interpret=True, tiles=SMALL))
  y, pull = jax.vjp(jax.jit(lambda x: dense(x, q, inputs=2)), x)
  np.testing.assert_allclose(y, jnp.tensordot(x, restored(q), 2), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(pull(g)[0], jnp.tensordot(g, restored(q), ((2, 3), (2, 3))), rtol=1e-5, atol=1e-5)
  assert {call.rows for call in asked} == {12}


@pytest.mark.parametrize('kind', ['nf4', 'int8'])
def test_on_a_mesh_codes_are_gathered_over_fsdp_and_no_matrix_is(kind, monkeypatch):
  """An MLP as models lay it out, by the kernels: its numbers, its gradient, and what the devices tell one another."""
  from kernels.lowbit import Choice, lowbit
  from model import quantize as module
  config, mesh = small(width=128, mlp=Gated(256)), MeshShape(fsdp=2, tensor=4).build()
  names = {'up': ('layers', 'embed', 'gates', 'mlp'), 'down': ('layers', 'mlp', 'embed')}
  plain = {'up': normal(1, 128, 2, 256) / 11, 'down': normal(1, 256, 128, seed=1) / 16}
  boxed = Quantize(kind)({'layers': {'mlp': {name: {'weight': LogicallyPartitioned(plain[name], names[name])}
                                             for name in names}}}, KEY)
  params, x, g = unbox(boxed), normal(8, 2, 128, seed=2), normal(8, 2, 128, seed=3)

  def both(params, x, g):
    layer = jax.tree.map(lambda w: w[0], params['layers']['mlp'])
    y, pull = jax.vjp(lambda x: MLP(config, config.mlp).apply({'params': layer}, x), x)
    return y, pull(g)[0]

  alone = jax.jit(both)(params, x, g)
  monkeypatch.setattr(module, 'choose', lambda call: Choice('few', {}))
  monkeypatch.setattr(module, 'lowbit', partial(lowbit, interpret=True, tiles=SMALL))
  with jax.set_mesh(mesh):
    places, rows = shardings(boxed, mesh), batch_sharding(mesh)
    run = jax.jit(lambda *each: both(*each), in_shardings=(places, rows, rows), out_shardings=rows)
    made = run.lower(params, x, g).compile()
    got = made(jax.device_put(params, places), *(jax.device_put(each, rows) for each in (x, g)))
  for value, true in zip(got, alone):
    np.testing.assert_allclose(value, true, rtol=1e-4, atol=1e-4 * float(np.abs(true).max()))
  told = exchanged(made.as_text())
  codes = {'nf4': {(2, 32, 2, 64), (1, 32, 128)}, 'int8': {(1, 128, 2, 64), (1, 64, 128)}}[kind]
  gathered = {each.shape for each in told if each.kind == 'all-gather' and each.dtype in ('u8', 's8')}
  assert gathered == codes                    # along fsdp alone: a quarter of each matrix still
  beside = {each.shape for each in told if each.kind == 'all-gather' and each.dtype == 'f32'}
  assert max(map(math.prod, beside)) <= 2 * 2 * 64, beside        # steps
  summed = {each for each in told if each.kind == 'all-reduce'}                  # parts of y and of the gradient
  assert {(each.dtype, math.prod(each.shape)) for each in summed} == {('f32', 4 * 2 * 128)}


def test_nothing_but_the_bits_is_kept_for_the_backward_pass():
  q, x = rounded(normal(256, 256), 'nf4', 1), normal(4, 256)
  kept = jax.tree.leaves(jax.vjp(lambda x: dense(jnp.sin(x), q), x)[1])
  assert sum(leaf.nbytes for leaf in kept) < 1.1 * (q.bits / 8 * q.size) + 2 * x.nbytes
  plain = jax.tree.leaves(jax.vjp(lambda x: dense(jnp.sin(x), matrix(q, jnp.float32)), x)[1])
  assert max(leaf.nbytes for leaf in plain) == 4 * q.size        # negative control: the matrix, dequantised


def test_compiled_no_matrix_waits_between_the_passes():
  """In a loop over layers. (Of layers written out XLA's CPU backend makes all matrices at once, whatever they come from.)"""
  width, layers = 128, 16
  stack = rounded(normal(layers, width, width), 'nf4', 1, stacked=1)

  def loss(x, multiplied):
    return jax.lax.scan(lambda x, w: (jnp.tanh(multiplied(x, w)), None), x, stack)[0].sum()

  def temporaries(multiplied) -> int:
    step = jax.jit(jax.grad(partial(loss, multiplied=multiplied)))
    return step.lower(normal(2, width)).compile().memory_analysis().temp_size_in_bytes

  whole = 4 * width * width
  assert temporaries(dense) < 5 * whole
  assert temporaries(lambda x, w: dense(x, matrix(w, jnp.float32))) > layers * whole      # negative control


@pytest.mark.parametrize('layers', ['scan', 'unroll'])
@pytest.mark.parametrize('name', ['llama', 'gemma2', 'mixtral'])
def test_a_quantised_model_is_the_model_of_the_dequantised_weights(name, layers):
  from model.config import Compute
  model, params = made(VARIANTS[name], Compute(layers=layers))
  few = jax.jit(Quantize())(params, KEY)
  many = jax.tree.map(lambda w: matrix(w, jnp.float32), few, is_leaf=lambda w: isinstance(w, Quantized))
  run = jax.jit(lambda params: model.hidden(params, tokens()).x_BLD)
  np.testing.assert_allclose(run(few), run(many), rtol=2e-5, atol=2e-5)


def test_what_is_quantised_and_what_is_not():
  for name in ('gpt2', 'mixtral', 'llama3'):
    _, params = made(VARIANTS[name])
    few = Quantize()(params, KEY)
    leaves = jax.tree_util.tree_leaves_with_path(few, is_leaf=lambda w: isinstance(w, Quantized))
    found = {'/'.join(part.key for part in path) for path, leaf in leaves if isinstance(leaf, Quantized)}
    end = '' if name == 'mixtral' else '/weight'
    assert found == {'layers/attention/qkv/weight', 'layers/attention/out/weight', f'layers/mlp/up{end}',
                     f'layers/mlp/down{end}'}
  only = Quantize('int8', targets=('down',))(params, KEY)
  assert only['layers']['mlp']['up']['weight'] is params['layers']['mlp']['up']['weight']
  assert only['layers']['mlp']['down']['weight'].bits == pytest.approx(8 + 32 / 24)


@pytest.mark.parametrize('first', [Quantize(), LoRA(2)])
def test_rounding_twice_or_over_adapters_is_refused(first):
  with pytest.raises(ConfigError) as caught:
    Quantize()(first(made(VARIANTS['llama'])[1], KEY), KEY)
  assert caught.value.id == 'edit.not-an-array'
