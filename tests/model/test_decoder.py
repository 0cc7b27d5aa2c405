"""Laws of the network: what a position may know, and that the way it is computed changes nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import Attention, Compute, Learned, Plain, Window
from model.decoder import build
from model.errors import ConfigError
from model.sharding import unbox
from model.sizes import SIZES
from tests.model.variants import EXACT, VARIANTS, made, small, tokens


def logits(config, tokens_BL, segments_BL=None, compute=Compute()):  # noqa: B008
  model, params = made(config, compute)

  @jax.jit
  def run(params, tokens_BL, segments_BL):
    return model.logits(params, model.hidden(params, tokens_BL, segments_BL).x_BLD)

  return np.asarray(run(params, tokens_BL, segments_BL), np.float32)


def gradients(config, compute):
  model, _ = made(config, compute)
  _, params = made(config)
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
  before = tokens()
  after = before.at[:, 7].set((before[:, 7] + 1) % 64)
  a, b = logits(VARIANTS[name], before), logits(VARIANTS[name], after)
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
  documents = tokens(1, 14)
  segments = jnp.array([[1] * 6 + [2] * 6 + [0] * 2])
  changed = documents.at[:, 2].set((documents[:, 2] + 1) % 64)
  a, b = logits(EXACT[name], documents, segments), logits(EXACT[name], changed, segments)
  np.testing.assert_array_equal(a[:, 6:12], b[:, 6:12])
  assert np.abs(a[:, 2:6] - b[:, 2:6]).max() > 1e-3
  alone = logits(EXACT[name], documents[:, 6:12])
  np.testing.assert_allclose(a[:, 6:12], alone, atol=2e-5)


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


@pytest.mark.parametrize('name', ['llama', 'gemma2', 'gemma3', 'mixtral'])
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
    _, pullback = jax.vjp(lambda p: model.hidden(p, tokens()).x_BLD, params)
    return sum(x.size for x in jax.tree.leaves(pullback))

  assert kept('full') < kept('dots') < kept('none')


@pytest.mark.parametrize('name', VARIANTS)
def test_loss_at_the_start_is_that_of_a_uniform_guess(name):
  model = build(VARIANTS[name])
  params = unbox(jax.jit(model.init)(jax.random.key(3)))
  tokens_BL = tokens(8, 32)
  loss = -model.logp(params, model.hidden(params, tokens_BL[:, :-1]).x_BLD, tokens_BL[:, 1:]).mean()
  assert abs(loss / np.log(64) - 1) < 0.02


def test_the_head_agrees_with_itself():
  """logp, nll and logits are three views of one distribution."""
  model, params = made(EXACT['gemma2'])
  tokens_BL, weights_BL = tokens(), jax.random.uniform(jax.random.key(5), (2, 12))
  x_BLD = model.hidden(params, tokens_BL).x_BLD
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
