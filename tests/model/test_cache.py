"""Reading a text a piece at a time gives what reading it at once gives, under every switch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.cache import empty, grow, write
from model.config import Compute
from tests.model.variants import EXACT, made, small, tokens


@pytest.mark.parametrize('name', EXACT)
def test_the_cache_equals_the_full_forward(name):
  """Two prompts of 8 and 5 tokens are read at once, then three more tokens each, one by one."""
  model, params = made(EXACT[name])
  lengths_B, rows = jnp.array([8, 5]), tokens(2, 11)
  prompt = (jnp.arange(8) < lengths_B[:, None]).astype(jnp.int32)

  @jax.jit
  def both(params):
    full = model.hidden(params, rows, (jnp.arange(11) < lengths_B[:, None] + 3).astype(jnp.int32)).x_BLD
    start = model.hidden(params, rows[:, :8], prompt, model.cache(2, 16))

    def read(cache, step):
      place_B1 = (lengths_B + step)[:, None]
      hidden = model.hidden(params, jnp.take_along_axis(rows, place_B1, 1), None, cache)
      return hidden.cache, (hidden.x_BLD, jnp.take_along_axis(full, place_B1[..., None], 1))

    cache, (found, expected) = jax.lax.scan(read, start.cache, jnp.arange(3))
    return full, start.x_BLD, found, expected, cache.lengths_B

  full, start, found, expected, lengths_after_B = both(params)
  seen = prompt[..., None]
  np.testing.assert_allclose(start * seen, full[:, :8] * seen, rtol=1e-5, atol=5e-5)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-5)
  np.testing.assert_array_equal(lengths_after_B, lengths_B + 3)


@pytest.mark.parametrize('layers', ['unroll', 'scan'])
def test_pieces_of_several_tokens_and_a_grown_cache(layers):
  model, params = made(EXACT['gemma3'], Compute(layers=layers))
  rows = tokens(2, 12)

  @jax.jit
  def both(params):
    first = model.hidden(params, rows[:, :5], None, model.cache(2, 5))
    second = model.hidden(params, rows[:, 5:], None, grow(first.cache, 12))
    return jnp.concatenate([first.x_BLD, second.x_BLD], 1), model.hidden(params, rows).x_BLD

  np.testing.assert_allclose(*both(params), rtol=1e-5, atol=5e-5)


def test_writing_touches_only_its_slots():
  layer = empty(small(), 2, 6).layers[0]
  new = jnp.ones((2, 2, 2, 8))
  written = write(layer, new, 2 * new, jnp.array([0, 3]))
  expected = np.zeros((2, 6))
  expected[0, 0:2] = expected[1, 3:5] = 1
  np.testing.assert_array_equal(written.k_BGSK[:, 0, :, 0], expected)
  np.testing.assert_array_equal(written.v_BGSK[:, 1, :, 7], 2 * expected)


def test_a_cache_is_as_narrow_as_the_matmuls():
  cache = empty(small(compute_dtype='bfloat16'), 3, 10)
  assert cache.slots == 10 and cache.layers[0].k_BGSK.shape == (3, 2, 10, 8)
  assert {x.dtype for x in jax.tree.leaves(cache.layers)} == {jnp.dtype('bfloat16')}
