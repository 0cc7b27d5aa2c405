"""Reading a text a piece at a time gives what reading it at once gives, under every switch."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.attention_held import whole
from model import attention
from model import cache as caches
from model.cache import Cache, empty, grow, rows, write
from model.config import Compute
from model.decoder import build
from model.sharding import unbox
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


@pytest.mark.parametrize('write', ['write', '_written'])
def test_a_step_copies_no_cache(write, monkeypatch):
  """On a CPU the loop of decoding changes the buffers of one row where they lie; a plain write would copy them."""
  monkeypatch.setattr(attention, 'write', getattr(caches, write))
  config = small()
  model = build(config)

  @partial(jax.jit, donate_argnames='cache')
  def loop(params, cache, token_B):
    return jax.lax.fori_loop(0, 9, lambda _, now: model.hidden(params, token_B[:, None], None, now).cache, cache)

  params, cache = jax.eval_shape(model.init, jax.random.key(0)), jax.eval_shape(lambda: model.cache(1, 48))
  text = loop.lower(unbox(params), cache, jax.ShapeDtypeStruct((1,), jnp.int32)).compile().as_text()
  size = ','.join(map(str, cache.layers[0].k_BGSK.shape))
  copies = [line for line in text.splitlines() if re.search(rf'= f32\[{size}\]\S* copy\(', line)]
  assert bool(copies) == (write == '_written')


def test_a_cache_is_as_narrow_as_the_matmuls():
  cache = empty(small(compute_dtype='bfloat16'), 3, 10)
  assert cache.slots == 10 and cache.layers[0].k_BGSK.shape == (3, 2, 10, 8)
  assert {x.dtype for x in jax.tree.leaves(cache.layers)} == {jnp.dtype('bfloat16')}


def test_a_cache_of_codes_is_near_to_one_of_numbers():
  """Read in two pieces, as every form reads it; a control that sees only the first piece is far away."""
  config = EXACT['gemma3']
  texts = tokens(3, 24)

  @jax.jit
  def read(params):
    found = {}
    for holding in (None, 'int8'):
      model, _ = made(config, Compute(cache=holding))
      first = model.hidden(params, texts[:, :20], None, model.cache(3, 24))
      found[holding] = model.logits(params, model.hidden(params, texts[:, 20:], None, first.cache).x_BLD)
    return found[None], found['int8'], model.logits(params, model.hidden(params, texts[:, 20:]).x_BLD)

  exact, near, far = read(made(config)[1])
  spread = exact.std()
  assert 0 < abs(near - exact).max() < 0.1 * spread < abs(far - exact).max()
  assert (near.argmax(-1) == exact.argmax(-1)).mean() > 0.9


def test_codes_take_a_quarter_of_the_memory_or_half():
  def size(cache):
    return sum(x.nbytes for x in jax.tree.leaves(cache.layers))

  for dtype, share in ('float32', 4), ('bfloat16', 2):
    config = small(compute_dtype=dtype, width=128, attention=dataclasses.replace(small().attention, head_size=64))
    plain, codes = empty(config, 3, 10), empty(config, 3, 10, 'int8')
    assert codes.slots == plain.slots == 10
    assert size(plain) / share < size(codes) <= size(plain) / share * (1 + 4 / 64)


@pytest.mark.parametrize('holding', [None, 'int8'])
def test_rows_of_a_cache_and_more_room(holding):
  """What is written by rows stays theirs; slots that are added are empty."""
  layer = empty(small(), 3, 4, holding).layers[0]
  new = jnp.broadcast_to(jnp.arange(1.0, 4)[:, None, None, None], (3, 1, 2, 8))
  layer = write(layer, new, -new, jnp.array([0, 1, 2]))
  cache = grow(rows(Cache((layer,), jnp.array([1, 2, 3])), jnp.array([2, 2, 0])), 6)
  expected = np.zeros((3, 6))
  expected[[0, 1], 2], expected[2, 0] = 3, 1
  np.testing.assert_allclose(whole(cache.layers[0].k_BGSK, 'float32')[:, 1, :, 5], expected, rtol=1e-6)
  np.testing.assert_allclose(whole(cache.layers[0].v_BGSK, 'float32')[:, 0, :, 0], -expected, rtol=1e-6)
  np.testing.assert_array_equal(cache.lengths_B, [3, 3, 1])
