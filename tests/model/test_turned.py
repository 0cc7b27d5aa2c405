"""Matrices that lie turned, or are taken in parts, multiply as they did before."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.decoder import build, laid_out
from model.linear import dense, matrix
from model.sharding import unbox
from model.sizes import llama
from model.turned import Parted, Turned, turned

CONFIG = llama(64, width=32, layers=2, count=2)


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('alone, rows', [(True, 1), (True, 2), (False, 2)])
def test_a_model_says_the_same(tied, alone, rows):
  model = build(replace(CONFIG, tied=tied))
  plain = laid_out(model.config, unbox(model.init(jax.random.key(0))))
  laid = turned(model.config, plain, alone)
  assert {type(laid['head']['weight']), type(laid['layers'][1]['mlp']['down']['weight'])} == {Parted if alone else Turned}
  say = jax.jit(lambda params, tokens_BL: model.logits(params, model.hidden(params, tokens_BL).x_BLD))
  for length in (1, 6):
    tokens_BL = jnp.arange(rows * length).reshape(rows, length)
    said = [say(params, tokens_BL) for params in (plain, laid)]
    np.testing.assert_allclose(*said, atol=1e-5)


@pytest.mark.parametrize('shape, alone, lies', [
  ((1024, 8), True, Turned),          # long rows
  ((1020, 8), True, Parted), ((1020, 8), False, Turned),
  ((1021, 8), True, jax.Array),       # which four do not divide
  ((8, 8192), True, jax.Array), ((8, 8192), False, Turned)])
def test_one_row_takes_a_matrix_by_its_shape(shape, alone, lies):
  w, x = jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), shape[:1])
  laid = turned(CONFIG, {'layers': ({'up': {'weight': w}},)}, alone)['layers'][0]['up']['weight']
  assert isinstance(laid, lies)
  np.testing.assert_array_equal(matrix(laid, 'float32'), w)
  np.testing.assert_allclose(dense(x[None], laid), np.asarray(x, np.float64)[None] @ np.asarray(w, np.float64), atol=1e-4)


@pytest.mark.parametrize('alone, rows', [(True, 1), (False, 2)])
def test_products_over_several_dimensions_are_the_same(alone, rows):
  w, x = jax.random.normal(jax.random.key(0), (6, 4, 24)), jax.random.normal(jax.random.key(1), (rows, 1, 6, 4))
  laid = turned(CONFIG, {'layers': ({'out': {'weight': w}},)}, alone)['layers'][0]['out']['weight']
  np.testing.assert_array_equal(matrix(laid, 'float32'), w)
  expected = np.tensordot(np.asarray(x, np.float64), np.asarray(w, np.float64), 2)
  np.testing.assert_allclose(dense(x, laid, inputs=2), expected, atol=1e-5)


def test_what_is_multiplied_in_bfloat16_lies_as_it_did():
  params = {'head': {'weight': jnp.ones((8, 8))}}
  assert turned(replace(CONFIG, compute_dtype='bfloat16'), params, alone=False) is params
