"""Matrices that lie turned multiply as they did before."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.decoder import build, laid_out
from model.linear import dense, matrix
from model.sharding import unbox
from model.sizes import llama
from model.turned import Turned, turned

CONFIG = llama(64, width=32, layers=2, count=2)


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('alone', [True, False])
def test_a_model_says_the_same(tied, alone):
  model = build(replace(CONFIG, tied=tied))
  plain = laid_out(model.config, unbox(model.init(jax.random.key(0))))
  laid = turned(model.config, plain, alone)
  assert isinstance(laid['head']['weight'], Turned) != alone         # of more outputs than inputs
  assert isinstance(laid['layers'][1]['mlp']['down']['weight'], Turned)
  said = [model.logits(params, model.hidden(params, jnp.arange(12).reshape(2, 6)).x_BLD) for params in (plain, laid)]
  np.testing.assert_allclose(*said, atol=1e-5)


def test_products_over_several_dimensions_are_the_same():
  w, x = jax.random.normal(jax.random.key(0), (6, 4, 24)), jax.random.normal(jax.random.key(1), (2, 3, 6, 4))
  laid = turned(CONFIG, {'layers': ({'out': {'weight': w}},)}, alone=False)['layers'][0]['out']['weight']
  np.testing.assert_array_equal(matrix(laid, 'float32'), w)
  expected = np.tensordot(np.asarray(x, np.float64), np.asarray(w, np.float64), 2)
  np.testing.assert_allclose(dense(x, laid, inputs=2), expected, atol=1e-5)


def test_what_is_multiplied_in_bfloat16_lies_as_it_did():
  params = {'head': {'weight': jnp.ones((8, 8))}}
  assert turned(replace(CONFIG, compute_dtype='bfloat16'), params, alone=False) is params
