"""A matrix in panels multiplies as it did before, and is laid so only where that pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.decoder import laid_out
from model.linear import dense, matrix
from model.panels import MOST, Panels, panels
from tests.model.variants import EXACT, made, tokens


@pytest.mark.parametrize(('shape', 'inputs'), [((24, 2, 3, 32), 1), ((4, 6, 128), 2)])
def test_products_are_those_of_the_matrix(shape, inputs):
  """Of a single row, of few, and of as many as a prompt has; turned columns would be noticed."""
  rng = np.random.default_rng(0)
  w = jnp.asarray(rng.normal(size=shape), jnp.float32)
  laid = panels(w, inputs, 'float32', 1)
  assert isinstance(laid, Panels) and laid.panels_PIC.shape[2] == 64
  np.testing.assert_array_equal(matrix(laid, 'float32'), w)
  turned = Panels(laid.panels_PIC[..., ::-1], laid.shape, laid.dtype)
  for leading in (1, 1), (3,), (2, 8), (5, 7):
    x = jnp.asarray(rng.normal(size=(*leading, *shape[:inputs])), jnp.float32)
    expected = dense(x, w, inputs=inputs)
    np.testing.assert_allclose(dense(x, laid, inputs=inputs), expected, atol=2e-5)
    assert not np.allclose(dense(x, turned, inputs=inputs), expected, atol=0.1)


def test_what_is_left_as_it_is():
  w = jnp.ones((8, 128))
  assert panels(w, 1, 'float32', MOST + 1) is w and panels(w, 1, 'bfloat16', 1) is w
  narrow = jnp.ones((8, 96))
  assert panels(narrow, 1, 'float32', 1) is narrow


@pytest.mark.parametrize('name', ['llama', 'gemma2'])
def test_a_model_that_is_laid_out_for_few_rows(name):
  """The same hidden states and logits; what is laid out stays so."""
  model, params = made(EXACT[name])
  laid = jax.jit(lambda params: laid_out(model.config, params, 4))(params)
  assert any(isinstance(x, Panels) for x in jax.tree.leaves(laid, is_leaf=lambda x: isinstance(x, Panels)))
  assert laid_out(model.config, laid) is laid
  x_BLD, found = (model.hidden(each, tokens(2, 6)).x_BLD for each in (params, laid))
  np.testing.assert_allclose(found, x_BLD, atol=5e-5)
  np.testing.assert_allclose(model.logits(laid, x_BLD), model.logits(params, x_BLD), atol=5e-5)
