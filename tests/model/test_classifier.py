"""The head that tells classes apart: what it reads, that texts of a row are as if alone, and where its leaves lie."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.classifier import Classifier, class_logits, segment_mean
from model.decoder import Hidden
from model.errors import ConfigError
from model.kinds import kinds
from model.sharding import unbox
from tests.model.variants import ENCODERS, VARIANTS, made, small

HEADS = [Classifier(3), Classifier(3, 'mean'), Classifier(5, 'mean', dense=True), Classifier(2, dense=True)]
LENGTHS = (5, 3, 1, 2)
SEGMENTS = jnp.array([[1] * 5 + [2] * 3 + [3] + [4] * 2 + [0]])


def headed(head: Classifier, config=ENCODERS['bert']):
  """A model and parameters with a head that is not as small as it begins."""
  model, params = made(config)
  return model, jax.tree.map(lambda leaf: leaf, params) | jax.tree.map(
    lambda leaf: 20 * leaf + 0.1, {'classifier': head(params, jax.random.key(3))['classifier']})


@partial(jax.jit, static_argnums=0)
def logits(model, params, tokens_BL, segments_BL):
  return class_logits(params, model.hidden(params, tokens_BL, segments_BL), segments_BL)


@pytest.mark.parametrize(('config', 'head'), [(ENCODERS['bert'], HEADS[0]), (ENCODERS['roberta'], HEADS[2]),
                                              (VARIANTS['llama'], HEADS[1])], ids=['bert', 'roberta', 'llama'])
def test_a_text_in_a_row_is_as_it_would_be_alone(config, head):
  model, params = headed(head, config)
  tokens_L = np.asarray(jax.random.randint(jax.random.key(1), (12,), 0, 64))
  ends = np.cumsum(LENGTHS)
  alone_RL = np.zeros((1 + len(LENGTHS), 12), np.int32)
  for row, (length, end) in enumerate(zip(LENGTHS, ends), 1):
    alone_RL[row, :length] = tokens_L[end - length:end]
  alone_RL[0] = tokens_L
  lengths_R1 = np.array([[0], *([length] for length in LENGTHS)])
  segments_RL = np.where(lengths_R1 == 0, SEGMENTS, np.arange(12) < lengths_R1)
  packed, *alone = np.asarray(logits(model, params, alone_RL, segments_RL))
  for found, length, end in zip(alone, LENGTHS, ends):
    np.testing.assert_allclose(packed[end - length:end], found[:length], atol=2e-5)
  merged = np.asarray(logits(model, params, alone_RL, np.ones_like(segments_RL)))[0]
  assert np.abs(packed[5:8] - merged[5:8]).max() > 1e-3


def test_a_mean_takes_nothing_from_its_neighbours_not_even_rounding():
  x_BLD = jax.random.normal(jax.random.key(0), (1, 12, 16))
  huge_BLD = jnp.where(SEGMENTS[..., None] == 2, x_BLD, 1e30)
  np.testing.assert_array_equal(segment_mean(huge_BLD, SEGMENTS)[0, 5:8], segment_mean(x_BLD, SEGMENTS)[0, 5:8])
  np.testing.assert_allclose(segment_mean(x_BLD, SEGMENTS)[0, 5:8], np.tile(x_BLD[0, 5:8].mean(0), (3, 1)), atol=1e-6)
  assert not np.asarray(segment_mean(x_BLD, SEGMENTS))[0, 11:].any()


def test_the_logits_are_those_of_numpy():
  """Against numpy, in float64: the first token or the mean, a square matrix and tanh or none, and the last matrix."""
  x_LD = np.random.default_rng(0).normal(size=(4, 16))
  hidden, ones = Hidden(jnp.asarray(x_LD[None], jnp.float32), None, {}), jnp.ones((1, 4), jnp.int32)
  for head in HEADS:
    _, params = headed(head)
    (_, leaves), = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params['classifier']).items()
    read_D = x_LD[0] if head.pooling == 'token' else x_LD.mean(0)
    if head.dense:
      read_D = np.tanh(read_D @ leaves['dense']['weight'] + leaves['dense']['bias'])
    wanted_C = read_D @ leaves['weight'] + leaves['bias']
    assert wanted_C.shape == (head.classes,)
    np.testing.assert_allclose(class_logits(params, hidden, ones)[0, 0], wanted_C, atol=1e-5)


def test_a_head_is_leaves_beside_the_model_and_begins_small():
  model, params = made(small(layers=1))
  head = Classifier(40, 'mean', dense=True)
  boxed = jax.eval_shape(lambda key: head(model.init(key), key), jax.random.key(0))
  plain = head(params, jax.random.key(0))
  assert jax.tree.structure(unbox(boxed)) == jax.tree.structure(plain)
  assert kinds(boxed)['classifier'] == {'mean': {'weight': 'head', 'bias': 'vector',
                                                 'dense': {'weight': 'head', 'bias': 'vector'}}}
  leaves = plain['classifier']['mean']
  np.testing.assert_allclose(leaves['weight'].std(), 0.02, rtol=0.1)
  assert not leaves['bias'].any() and not jnp.array_equal(leaves['weight'][:, :16], leaves['dense']['weight'])
  assert {leaf.dtype for leaf in jax.tree.leaves(leaves)} == {jnp.dtype('float32')}


def test_what_cannot_be_is_refused():
  _, params = headed(HEADS[0])
  with pytest.raises(ConfigError, match=r'edit\.twice'):
    HEADS[1](params, jax.random.key(0))
  with pytest.raises(ConfigError, match=r'classifier\.none'):
    class_logits(made(ENCODERS['bert'])[1], None, None)
  with pytest.raises(ConfigError, match='cannot be told apart'):
    Classifier(1)
