"""Laws of the network: what a position may know, and that the way it is computed changes nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from model.config import AllHeads, Attention, Compute, Learned, NoPositions, Plain, RMSNorm, Rotary, Window
from model.decoder import build
from model.errors import ConfigError
from model.sharding import unbox
from model.sizes import SIZES
from model.stack import period, role_of
from tests.model.variants import EXACT, VARIANTS, logits, made, small, tokens


def gradients(config, compute):
  model, params = made(config, compute)
  tokens_BL = tokens()

  def loss(params):
    hidden = model.hidden(params, tokens_BL[:, :-1])
    penalty = sum(penalty_B.sum() for penalty_B in hidden.aux.values())
    return -model.logp(params, hidden.x_BLD, tokens_BL[:, 1:]).mean() + penalty

  return jax.jit(jax.value_and_grad(loss))(params)


def assert_close(a, b, tolerance):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(y).max())))


@pytest.mark.parametrize('name', VARIANTS)
def test_a_position_knows_nothing_of_later_ones(name):
  one = jnp.ones((1, 12), jnp.int32)
  before = tokens(1)
  after = before.at[:, 7].set((before[:, 7] + 1) % 64)
  a, b = logits(VARIANTS[name], before, one), logits(VARIANTS[name], after, one)
  np.testing.assert_array_equal(a[:, :7], b[:, :7])
  assert np.abs(a[:, 7] - b[:, 7]).max() > 1e-3


def test_a_bidirectional_position_knows_later_ones():
  before = tokens()
  after = before.at[:, 7].set((before[:, 7] + 1) % 64)
  encoder = small(causal=False, placement='post', positions=Learned(32), mlp=Plain(32))
  a, b = logits(encoder, before), logits(encoder, after)
  assert np.abs(a[:, 2] - b[:, 2]).max() > 1e-4


@pytest.mark.parametrize('name', EXACT)
def test_packed_documents_do_not_see_each_other(name):
  """To the bit: what document A says changes nothing in B, which reads as it would alone."""
  first, second = tokens(1, 12)[:, :6], tokens(1, 12)[:, 6:]
  packed, split = jnp.array([[1] * 6 + [2] * 6]), jnp.array([[1] * 6 + [0] * 6])
  a = logits(EXACT[name], jnp.concatenate([first, second], 1), packed)
  b = logits(EXACT[name], jnp.concatenate([first.at[:, 2].add(1) % 64, second], 1), packed)
  np.testing.assert_array_equal(a[:, 6:], b[:, 6:])
  assert np.abs(a[:, 2:6] - b[:, 2:6]).max() > 1e-3
  alone = logits(EXACT[name], jnp.concatenate([second, first], 1), split)
  np.testing.assert_allclose(a[:, 6:], alone[:, :6], atol=2e-5)


def test_bidirectional_documents_do_not_see_each_other():
  encoder = small(causal=False, attention=Attention(4, 2, 8, window=Window(3, ('local', 'global'))))
  documents, segments = tokens(1, 14), jnp.array([[1] * 6 + [2] * 6 + [0] * 2])
  a = logits(encoder, documents, segments)
  np.testing.assert_allclose(a[:, :6], logits(encoder, documents[:, :6]), atol=2e-5)
  np.testing.assert_allclose(a[:, 6:12], logits(encoder, documents[:, 6:12]), atol=2e-5)


def test_a_window_ends_where_it_says():
  """With one layer a position sees exactly the last `size` tokens, itself among them."""
  config = small(layers=1, attention=Attention(4, 2, 8, window=Window(4)))
  base = logits(config, tokens())
  for place, seen in ((8, False), (9, True), (12 - 1, True), (5, False)):
    changed = logits(config, tokens().at[:, place - 1].add(1) % 64)
    differs = bool(np.abs(base[:, 11] - changed[:, 11]).max() > 1e-5)
    assert differs == seen, place


def test_a_pattern_of_windows_is_as_wide_as_its_global_layers():
  config = small(layers=2, attention=Attention(4, 2, 8, window=Window(2, ('local', 'global'))))
  local = replace(config, attention=replace(config.attention, window=Window(2)))
  changed = tokens().at[:, 0].add(1) % 64
  assert np.abs(logits(config, tokens())[:, 11] - logits(config, changed)[:, 11]).max() > 1e-5
  np.testing.assert_array_equal(logits(local, tokens())[:, 11], logits(local, changed)[:, 11])


def test_only_turned_layers_know_where_they_are():
  """No layer turned is no positions; and where one of two is, the other still is not."""
  still, turned, both = (logits(small(positions=Rotary(pattern=pattern)), tokens())
                         for pattern in (('still',), ('turned',), ('turned', 'still')))
  np.testing.assert_array_equal(still, logits(small(positions=NoPositions()), tokens()))
  np.testing.assert_array_equal(turned, logits(small(), tokens()))
  assert min(np.abs(both - other).max() for other in (still, turned)) > 1e-2


def test_roles_begin_again_after_both_patterns():
  config = small(layers=14, attention=Attention(4, 2, 8, window=Window(3, ('local', 'global'))),
                 positions=Rotary(pattern=('turned', 'turned', 'still')))
  roles = [role_of(config, i) for i in range(14)]
  assert period(config) == 6 and roles[:6] == roles[6:12] and roles[:2] == roles[12:] and len(set(roles)) == 4
  assert period(small()) == 1 and period(small(positions=NoPositions())) == 1


def test_a_norm_over_all_heads_sees_all_of_them():
  """Of one head it is the norm over each; of several, what is larger in one makes the others smaller."""
  each, joint = (small(attention=Attention(1, 1, 8, qk_norm=norm)) for norm in (RMSNorm(), AllHeads()))
  np.testing.assert_array_equal(logits(each, tokens()), logits(joint, tokens()))
  config = small(layers=1, attention=Attention(2, 2, 8, qk_norm=AllHeads()))
  model, params = made(config)
  qkv_DGRK = params['layers']['attention']['qkv']['weight'][0]
  out_HKD = params['layers']['attention']['out']['weight'].at[:, 0].set(0)        # the first head is not heard

  @jax.jit
  def heard(qkv_DGRK):
    attention = params['layers']['attention'] | {'qkv': {'weight': qkv_DGRK[None]}, 'out': {'weight': out_HKD}}
    return model.hidden(params | {'layers': params['layers'] | {'attention': attention}}, tokens()).x_BLD

  louder, value = qkv_DGRK.at[:, 0, 0].multiply(3), qkv_DGRK.at[:, 0, 2].multiply(3)
  assert np.abs(heard(louder) - heard(qkv_DGRK)).max() > 1e-3
  np.testing.assert_array_equal(heard(value), heard(qkv_DGRK))


def test_a_parallel_mlp_does_not_read_what_attention_adds():
  """Where attention adds nothing it is the usual block, and where it does it is another."""
  parallel = EXACT['neox']
  _, params = made(parallel)
  deaf = jax.tree.map(jnp.zeros_like, params['layers']['attention']['out'])
  without = params | {'layers': params['layers'] | {'attention': params['layers']['attention'] | {'out': deaf}}}
  found = [jax.jit(build(replace(parallel, placement=placement)).hidden)(each, tokens()).x_BLD
           for placement in ('parallel', 'pre') for each in (without, params)]
  np.testing.assert_array_equal(found[0], found[2])
  assert np.abs(found[1] - found[3]).max() > 1e-2


@pytest.mark.parametrize('name', ['llama', 'gemma2', 'gemma3', 'mixtral', 'smollm3'])
def test_scan_equals_unrolled(name):
  assert_close(gradients(EXACT[name], Compute(layers='scan')), gradients(EXACT[name], Compute(layers='unroll')), 1e-5)


@pytest.mark.parametrize('layers', ['scan', 'unroll'])
@pytest.mark.parametrize('remat', ['dots', 'full'])
def test_remat_equals_none(remat, layers):
  kept = gradients(EXACT['gemma2'], Compute(layers=layers))
  assert_close(gradients(EXACT['gemma2'], Compute(layers=layers, remat=remat)), kept, 1e-5)


def test_remat_keeps_less():
  """The residuals of the backward pass, counted: full remat keeps the inputs of blocks, 'dots' the matmuls too."""
  def kept(remat):
    model, params = made(small(), Compute(remat=remat))
    held = jax.eval_shape(lambda p: jax.tree.leaves(jax.vjp(lambda p: model.hidden(p, tokens()).x_BLD, p)[1]), params)
    return sum(x.size for x in held)

  assert kept('full') < kept('dots') < kept('none')


@pytest.mark.parametrize('layers', ['scan', 'unroll'])
def test_no_product_is_computed_again_unless_it_is_asked_for(layers):
  """With a soft cap: without, 'none' keeps the scores of so few positions as well."""
  def products(remat):
    model, params = made(EXACT['gemma2'], Compute(layers=layers, remat=remat, attention='blocked'))
    return counted(jax.make_jaxpr(jax.grad(lambda p: model.hidden(p, tokens()).x_BLD.sum()))(params).jaxpr)

  def counted(jaxpr):
    return sum((eqn.primitive.name == 'dot_general') + sum(map(counted, jaxprs_in_params(eqn.params))) for eqn in jaxpr.eqns)

  assert products('none') == products('dots') < products('full')


def test_a_loop_keeps_no_copy_of_its_weights():
  """What the backward pass holds: the stacked leaf itself, and nothing else of its size."""
  model, params = made(small(width=20, layers=3), Compute(layers='scan'))
  stacked = params['layers']['mlp']['up']['weight']
  held = jax.tree.leaves(jax.vjp(lambda p: model.hidden(p, tokens()).x_BLD, params)[1])
  assert [x.shape for x in held if x.size == stacked.size] == [stacked.shape]


@pytest.mark.parametrize('name', ['llama', 'llama3', 'gpt2', 'gemma2', 'mixtral', 'post'])
def test_loss_at_the_start_is_that_of_a_uniform_guess(name):
  model = build(VARIANTS[name])

  @jax.jit
  def loss(key):
    params = unbox(model.init(key))
    return -model.logp(params, model.hidden(params, tokens(8, 32)[:, :-1]).x_BLD, tokens(8, 32)[:, 1:]).mean()

  assert abs(loss(jax.random.key(3)) / np.log(64) - 1) < 0.02


def test_the_head_agrees_with_itself():
  """logp, nll and logits are three views of one distribution."""
  model, params = made(EXACT['gemma2'])
  tokens_BL, weights_BL = tokens(), jax.random.uniform(jax.random.key(5), (2, 12))
  x_BLD = jax.jit(model.hidden)(params, tokens_BL).x_BLD
  logits_BLV = model.logits(params, x_BLD)
  expected_BL = jnp.take_along_axis(jax.nn.log_softmax(logits_BLV), tokens_BL[..., None], -1)[..., 0]
  np.testing.assert_allclose(model.logp(params, x_BLD, tokens_BL), expected_BL, atol=1e-5)
  sums = model.nll(params, x_BLD, tokens_BL, weights_BL)
  np.testing.assert_allclose(sums.nll, -(expected_BL * weights_BL).sum(), rtol=1e-5)


def test_parameters_are_one_tree_whatever_the_switches():
  def shapes(compute, **changes):
    model = build(small(**changes), compute)
    return jax.tree.map(lambda x: (x.shape, x.dtype), unbox(jax.eval_shape(model.init, jax.random.key(0))))

  assert shapes(Compute(layers='scan')) == shapes(Compute(layers='unroll', remat='full'))
  assert shapes(Compute()) == shapes(Compute(), compute_dtype='bfloat16', stream_dtype='bfloat16')


def test_parameters_have_the_dtype_that_was_asked_for():
  model = build(small(param_dtype='bfloat16'))
  leaves = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype('bfloat16')}


def test_a_row_longer_than_the_position_table_is_refused():
  model, params = made(EXACT['gpt2'])
  with pytest.raises(ConfigError, match='position table has 32'):
    model.hidden(params, tokens(1, 33))
  with pytest.raises(ConfigError, match='position table has 32'):
    model.cache(1, 64)


@pytest.mark.parametrize('name', SIZES)
def test_every_size_traces(name):
  model = build(SIZES[name])
  params = unbox(jax.eval_shape(model.init, jax.random.key(0)))
  row = jax.ShapeDtypeStruct((2, 64), jnp.int32)

  def loss(params, tokens_BL, segments_BL):
    x_BLD = model.hidden(params, tokens_BL, segments_BL).x_BLD
    return model.nll(params, x_BLD, tokens_BL, jnp.ones(tokens_BL.shape)).nll

  gradient = jax.eval_shape(jax.grad(loss), params, row, row)
  assert jax.tree.map(lambda x: x.shape, gradient) == jax.tree.map(lambda x: x.shape, params)
