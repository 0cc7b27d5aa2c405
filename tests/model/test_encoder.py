"""Laws of encoders of BERT's form: what their embeddings and their head do, what types and places add, and how they start."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.adapt import LoRA
from model.config import LayerNorm, Learned, Transformed, Typed
from model.decoder import build, laid_out, own
from model.errors import ConfigError
from model.sharding import MeshShape, shardings, unbox
from tests.model.variants import ENCODERS, EXACT, logits, made, small, tokens
from train.artifact import digest, encode


def plain_norm(x, part, eps):
  """Ba et al. 2016, in float64."""
  x = np.asarray(x, np.float64)
  y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * part['scale']
  return y + part.get('bias', 0)


@pytest.mark.parametrize('name', ENCODERS)
def test_the_head_by_hand(name):
  """logits = cap(norm(activation(x dense + b)) table + bias)."""
  config = ENCODERS[name]
  model, params = made(config)
  x_BLD, part = jax.random.normal(jax.random.key(0), (2, 3, 16)), params['transform']
  h = np.asarray(x_BLD, np.float64) @ part['dense']['weight'] + part['dense'].get('bias', 0)
  h = np.maximum(h, 0) if config.head.activation == 'relu' else np.asarray(jax.nn.gelu(h, approximate=False))
  w_DV = params['embedding']['table'].T if config.tied else params['head']['weight']
  expected = plain_norm(h, part['norm'], config.norm.eps) @ w_DV + part['bias']
  expected = expected if config.softcap is None else config.softcap * np.tanh(expected / config.softcap)
  found = jax.jit(model.logits)(params, x_BLD)
  np.testing.assert_allclose(found, expected, atol=1e-4)
  np.testing.assert_allclose(model.logits(laid_out(config, params), x_BLD), found, atol=1e-6)
  targets_BL = tokens(2, 3)
  logp = np.take_along_axis(np.asarray(jax.nn.log_softmax(found)), np.asarray(targets_BL)[..., None], -1)[..., 0]
  np.testing.assert_allclose(model.logp(params, x_BLD, targets_BL), logp, atol=1e-5)
  np.testing.assert_allclose(model.nll(params, x_BLD, targets_BL, jnp.ones((2, 3))).nll, -logp.sum(), atol=1e-4)


@pytest.mark.parametrize('name', ENCODERS)
def test_gradients_of_every_parameter_are_those_of_plain_logits(name):
  """The bias over the vocabulary too; a vector of no token alone has none."""
  config = ENCODERS[name]
  model, params = made(config)
  types_BL = tokens() % config.embedding.types if isinstance(config.embedding, Typed) else None

  def fused(params):
    return model.nll(params, model.hidden(params, tokens(), types_BL=types_BL).x_BLD, tokens(seed=2), jnp.ones((2, 12))).nll

  def plain(params):
    logp = jax.nn.log_softmax(model.logits(params, model.hidden(params, tokens(), types_BL=types_BL).x_BLD))
    return -jnp.take_along_axis(logp, tokens(seed=2)[..., None], -1).sum()

  one, other = jax.jit(jax.grad(fused))(params), jax.jit(jax.grad(plain))(params)
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4 * max(1, float(jnp.abs(b).max())), err_msg=jax.tree_util.keystr(path))
    assert float(jnp.abs(a).max()) > 1e-4, path


def test_types_are_0_unless_they_are_given():
  model, params = made(ENCODERS['bert'])
  hidden = jax.jit(lambda types_BL: model.hidden(params, tokens(), types_BL=types_BL).x_BLD)
  np.testing.assert_array_equal(hidden(None), hidden(jnp.zeros((2, 12), jnp.int32)))
  assert np.abs(hidden(None) - hidden(jnp.ones((2, 12), jnp.int32))).max() > 0.1
  for model, params in (made(EXACT['llama']), made(ENCODERS['modernbert'])):
    with pytest.raises(ConfigError, match='types'):
      model.hidden(params, tokens(), types_BL=tokens())


def test_the_first_attention_reads_what_the_embedding_norm_gives():
  """All layers but the first have a norm of their own: there is one row of it fewer, and each row is that of its layer."""
  config = ENCODERS['modernbert']
  model, params = made(config)
  norm = params['layers']['attention_norm']['scale']
  assert norm.shape == (3, 16) and params['layers']['mlp_norm']['scale'].shape == (4, 16)

  @jax.jit
  def hidden(params, scale):
    return model.hidden(params | {'layers': params['layers'] | {'attention_norm': {'scale': scale}}}, tokens()).x_BLD

  one, other = replace(config, layers=1), build(replace(config, layers=1))
  first = jax.tree.map(lambda w: w[:1], params['layers']) | {'attention_norm': {'scale': norm[:0]}}
  alone = other.hidden(params | {'layers': first}, tokens()).x_BLD
  silent = jax.tree.map(lambda w: w.at[1:].set(0), {part: params['layers'][part] for part in ('attention', 'mlp')})
  np.testing.assert_allclose(hidden(params | {'layers': params['layers'] | silent}, norm), alone, atol=1e-5)
  assert one.placement == 'pre_but_first'
  for row in range(3):
    assert np.abs(hidden(params, norm.at[row].multiply(2)) - hidden(params, norm)).max() > 1e-2


def test_a_head_without_biases_is_one_whose_biases_are_0():
  """And then has no parameters for them."""
  config = ENCODERS['bert']
  bare = replace(config, head=Transformed(dense_bias=False, logit_bias=False))
  model, params = made(config)
  part = params['transform']
  zero = params | {'transform': {'dense': part['dense'] | {'bias': jnp.zeros(16)}, 'norm': part['norm'], 'bias': jnp.zeros(64)}}
  less = params | {'transform': {'dense': {'weight': part['dense']['weight']}, 'norm': part['norm']}}
  x_BLD = jax.random.normal(jax.random.key(0), (2, 3, 16))
  np.testing.assert_allclose(build(bare).logits(less, x_BLD), model.logits(zero, x_BLD), atol=1e-5)
  shapes = unbox(jax.eval_shape(build(bare).init, jax.random.key(0)))
  assert jax.tree.structure(shapes) == jax.tree.structure(less)


def test_documents_begin_at_the_first_place_that_is_theirs():
  """The vectors before it change nothing, those from it on do; rows are as long as what is left of the table."""
  config = ENCODERS['roberta']
  model, params = made(config)

  @jax.jit
  def hidden(row):
    table = params['positions']['table'].at[row, 3].add(1.0)
    return model.hidden(params | {'positions': {'table': table}}, tokens()).x_BLD

  np.testing.assert_array_equal(hidden(0), hidden(1))
  assert np.abs(hidden(2)[:, 0] - hidden(0)[:, 0]).max() > 1e-2
  jax.eval_shape(model.hidden, params, tokens(1, 32))
  with pytest.raises(ConfigError, match=r'at most 32 tokens, or Learned\(length=35\)'):
    model.hidden(params, tokens(1, 33))
  with pytest.raises(ConfigError, match=r'Learned\.first'):
    Learned(4, first=4)


@pytest.mark.parametrize('name', ENCODERS)
def test_texts_in_one_row_do_not_see_each_other(name):
  segments = jnp.array([[1] * 6 + [2] * 4 + [0] * 2] * 2)
  packed = logits(ENCODERS[name], tokens(), segments)
  np.testing.assert_allclose(packed[:, :6], logits(ENCODERS[name], tokens()[:, :6]), atol=5e-5)
  np.testing.assert_allclose(packed[:, 6:10], logits(ENCODERS[name], tokens()[:, 6:10]), atol=5e-5)


def test_a_new_encoder_guesses_uniformly():
  config = replace(ENCODERS['bert'], vocab=512, norm=LayerNorm())
  model = build(config)
  params = unbox(jax.jit(model.init)(jax.random.key(0)))
  rows = tokens(4, 16)
  loss = jax.jit(lambda params: -model.logp(params, model.hidden(params, rows).x_BLD, rows).mean())(params)
  assert abs(float(loss) - np.log(512)) < 0.02 * np.log(512)
  assert float(params['transform']['dense']['weight'].std()) > 0 == float(jnp.abs(params['transform']['bias']).max())


def test_on_a_mesh_as_on_one_device():
  model, params = made(ENCODERS['bert'])
  grid = MeshShape(data=2, fsdp=2, tensor=2).build()
  forward = jax.jit(lambda params, tokens_BL: model.logp(params, model.hidden(params, tokens_BL).x_BLD, tokens_BL))
  with jax.set_mesh(grid):
    cut = jax.device_put(params, shardings(jax.eval_shape(model.init, jax.random.key(0)), grid))
    spread = np.asarray(forward(cut, tokens(4)))
  np.testing.assert_allclose(spread, forward(params, tokens(4)), atol=1e-5)
  assert cut['transform']['dense']['weight'].sharding.shard_shape((16, 16)) == (8, 8)


def test_all_parts_are_the_models_own_and_edits_leave_the_head_alone():
  _, params = made(ENCODERS['bert'])
  assert own(params).keys() == params.keys()
  learned = LoRA(2)(params, jax.random.key(0))
  assert type(learned['transform']['dense']['weight']) is type(params['transform']['dense']['weight'])


def test_a_decoder_says_nothing_of_what_it_has_not():
  """Digests are as before these fields; with one they differ."""
  said = digest(small(positions=Learned(8)))
  assert said not in {digest(small(positions=Learned(8, first=1))), digest(ENCODERS['bert'])}
  short = encode(small(positions=Learned(8)), shorten=lambda _: None)
  assert not {'embedding', 'head'} & short.keys() and 'first' not in short['positions']
  assert encode(ENCODERS['bert'], shorten=lambda _: None)['head'].keys() == {'type', 'activation'}
