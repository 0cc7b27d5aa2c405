"""Attention over a cache, interpreted on the CPU: against a float64 softmax, in parts, over int8 codes and over pages."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import attention_decode
from kernels.attention import attention
from kernels.attention_bounds import key_bounds
from kernels.attention_call import Call
from kernels.attention_decode import decode, decode_refusal
from kernels.attention_decode_blocks import Tile
from kernels.attention_held import Coded, Held, Paged, coded, whole
from kernels.ranges import Kind, Ranges, cached_ranges
from tests.kernels.attention_table import CASES, Case, close, gradients, mask, operands, truth
from tests.kernels.collectives import exchanged

TILE = Tile(16, programs=12)           # blocks of 16 keys, in up to 6 parts
SCATTERED = np.sort(np.random.default_rng(3).integers(-3, 71, (2, 2, 16)), axis=0)


def cache(starts, new, keys, window=None, **sizes):
  """New tokens of two rows, the second of which ends with one of padding where there are several."""
  seen = jnp.ones((2, new), bool).at[1, -1].set(new == 1)
  return Case(cached_ranges(jnp.asarray(starts), seen, window), keys=keys, **sizes)


DECODING = {
  'one query, 70 keys': cache([69, 3], 1, 70, head_size=16),
  'a group of 8': cache([40, 0], 1, 64, heads=8, key_heads=1, head_size=32, scale=0.2),
  'groups of 3, 5 queries, cap': cache([9, 50], 5, 64, heads=6, head_size=16, softcap=2.0),
  'a window, heads of 80': cache([60, 20], 2, 70, 9, head_size=80, scale=0.1),
  '16 queries, 128 rows of a group': Case(Ranges(*jnp.asarray(SCATTERED, jnp.int32), Kind()), keys=70, heads=8, key_heads=1,
                                          head_size=16),
  'fewer keys than a block': CASES['one wide token'],
  'many parts of few keys': cache([95, 17], 1, 96, heads=4, key_heads=1, head_size=256, scale=0.06),
  'huge scores': cache([40, 7], 3, 48, head_size=16, scale=1e3),
  'an empty cache': Case(cached_ranges(jnp.asarray([0, 0]), jnp.zeros((2, 1), bool)), keys=32, head_size=16),
}


class Laid(NamedTuple):
  """Keys or values as a cache may hold them, and the numbers that this stands for."""

  held: Held
  stands: np.ndarray


def plain(x_BSGK):
  return Laid(x_BSGK, np.asarray(x_BSGK, np.float32))


def codes(x_BSGK):
  held = coded(x_BSGK)
  return Laid(held, np.asarray(held.codes, np.float32) * np.asarray(held.scale)[..., None])


def pages(x_BSGK, inner=plain, size=32):
  """Pages in random order, among unused ones with values that would be noticed."""
  count = -(-x_BSGK.shape[1] // size)
  x = jnp.pad(x_BSGK, ((0, 0), (0, count * size - x_BSGK.shape[1]), (0, 0), (0, 0)))
  order = np.random.default_rng(0).permutation(2 * count + 3)[:2 * count]
  alone = x.reshape(2 * count, size, *x.shape[2:])
  laid = inner(alone)
  spread = jax.tree.map(lambda a: jnp.full((2 * count + 3, *a.shape[1:]), 99, a.dtype).at[order].set(a), laid.held)
  return Laid(Paged(spread, jnp.asarray(order.reshape(2, count), jnp.int32)), laid.stands.reshape(x.shape))


LAYS = {'plain': plain, 'codes': codes, 'pages': pages, 'pages of codes': partial(pages, inner=codes)}
RUNS = [(name, lay, 'float32') for name in DECODING for lay in ('plain', 'pages of codes')] + [
  ('a group of 8', lay, dtype) for lay, dtype in (
    ('codes', 'float32'), ('pages', 'float32'), *((lay, 'bfloat16') for lay in LAYS))] + [
  (name, 'plain', 'float32') for name in ('cache of wide heads', 'grouped')]


def run(case, q, k, v, tile=TILE):
  return jax.jit(partial(decode, scale=case.scale, softcap=case.softcap, tile=tile, interpret=True))(q, k, v, case.ranges)


def expected(case, q, k, v, g):
  """From the numbers that the cache stands for, which may be more keys than there are."""
  k, v = (jnp.asarray(x[:, :case.keys], jnp.float32) for x in (k, v))
  return truth(case, q, k, v, g)[0]


@pytest.mark.parametrize(('name', 'lay', 'dtype'), RUNS)
def test_values(name, lay, dtype):
  """Of arrays, int8 and paged caches; rows with an empty range give exact zeros."""
  case = {**CASES, **DECODING}[name]
  q, k, v, g = operands(case, dtype)
  k, v = LAYS[lay](k), LAYS[lay](v)
  got = run(case, q, k.held, v.held)
  assert got.dtype == dtype
  close(got, expected(case, q, k.stands, v.stands, g), 2e-5 * max(1, case.scale) if dtype == 'float32' else 3e-2)
  assert not np.asarray(got)[~mask(case.ranges, case.keys).any(-1)].any()


def test_wrong_scales_pages_and_ranges_are_noticed():
  """The control of the test above."""
  case = DECODING['groups of 3, 5 queries, cap']
  q, k, v, g = operands(case)
  k, v = (pages(x, codes) for x in (k, v))
  right = expected(case, q, k.stands, v.stands, g)

  def scaled(laid):
    pages = laid.held.pages_PCGK
    return Paged(Coded(pages.codes, jnp.roll(pages.scale, 1, 1)), laid.held.table_BN)

  turned = Paged(v.held.pages_PCGK, v.held.table_BN[:, ::-1])
  later = case._replace(ranges=case.ranges.replace(last_BL=case.ranges.last_BL - 1))
  close(run(case, q, k.held, v.held), right, 2e-5)
  for wrong in (run(case, q, scaled(k), v.held), run(case, q, k.held, scaled(v)), run(case, q, k.held, turned),
                run(later, q, k.held, v.held)):
    with pytest.raises(AssertionError):
      close(wrong, right, 2e-5)


@pytest.mark.parametrize('part', [0, 1])
def test_a_skipped_block_is_noticed(part, monkeypatch):
  """The first of a row's blocks, or the last."""
  case = DECODING['one query, 70 keys']
  shift = jnp.asarray([1, 0, 0, 0] if part == 0 else [0, 0, 0, -1])
  monkeypatch.setattr(attention_decode, 'key_bounds', lambda *of: key_bounds(*of) + shift)
  q, k, v, g = operands(case)
  with pytest.raises(AssertionError):
    close(run(case, q, k, v), truth(case, q, k, v, g)[0], 2e-5)


def test_blocks_that_nobody_sees_are_not_read():
  """Keys before a window and behind a cache's end may hold anything."""
  case = cache([63, 50], 1, 128, 16, head_size=16)
  q, k, v, _ = operands(case)
  ruined = [x.at[:, :32].set(jnp.nan).at[:, 64:].set(jnp.nan) for x in (k, v)]
  np.testing.assert_array_equal(run(case, q, k, v), run(case, q, *ruined))


def test_the_parts_are_a_row_s_own(monkeypatch):
  """A row that sees a tenth of the cache is cut into as many parts as one that sees it all."""
  case = cache([159, 15 + 16], 1, 320, heads=2, key_heads=1, head_size=16)
  q, k, v, _ = operands(case)

  def busy(acc, top, total):
    return jnp.broadcast_to((total > 0).sum(2)[..., None], acc[:, :, 0].shape).astype(jnp.float32), total[:, :, 0]

  monkeypatch.setattr(attention_decode, 'merged', busy)
  parts = run(case, q, k, v, tile=Tile(16, programs=10))
  np.testing.assert_array_equal(parts[:, 0, 0, 0], [5, 2])


def test_gradients_come_from_the_kernels_for_many_queries():
  """Training on short rows works; int8 keys and values have no gradient."""
  case = CASES['cache of wide heads']
  data = operands(case)
  attend = partial(decode, tile=TILE, interpret=True)
  for got, right in zip(jax.jit(partial(gradients, case, attend))(*data), truth(case, *data)):
    close(got, right, 2e-5)


def test_other_implementations_take_codes_and_pages_too():
  """`attention` decodes the cache to an array for them."""
  case = DECODING['groups of 3, 5 queries, cap']
  q, k, v, g = operands(case)
  k, v = (pages(x, codes) for x in (k, v))
  for implementation in ('reference', 'blocked', None):
    got = attention(q, k.held, v.held, case.ranges, scale=case.scale, softcap=case.softcap, implementation=implementation)
    close(got, expected(case, q, k.stands, v.stands, g), 2e-5)


def test_codes_are_as_near_as_eight_bits_are():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 2, 64)), jnp.float32).at[0, 0, 0].set(0)
  held = coded(x)
  assert bool((abs(whole(held, 'float32') - x) <= held.scale[..., None] * 0.5001).all())
  assert held.codes.dtype == jnp.int8 and int(abs(held.codes).max()) == 127


@pytest.mark.parametrize('lay', ['plain', 'codes'])
def test_rows_and_heads_over_eight_devices(lay):
  """Nothing is gathered where rows and key heads lie on different devices."""
  mesh = jax.make_mesh((4, 2), ('data', 'tensor'), axis_types=(AxisType.Auto,) * 2)
  rng = np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.normal(size=(8, length, heads, 16)), jnp.float32) for length, heads in ((1, 4), (40, 2), (40, 2)))
  k, v = LAYS[lay](k), LAYS[lay](v)
  ranges = cached_ranges(jnp.arange(0, 40, 5), jnp.ones((8, 1), bool))

  def go(ranges, q, k, v):
    return decode(q, k, v, ranges, scale=0.5, softcap=None, tile=TILE, interpret=True)

  with jax.set_mesh(mesh):
    rows, heads = NamedSharding(mesh, P('data')), NamedSharding(mesh, P('data', None, 'tensor'))
    laid = jax.device_put(ranges, rows), *jax.device_put((q, k.held, v.held), heads)
    compiled = jax.jit(go).lower(*laid).compile()
    got = compiled(*laid)
  assert not exchanged(compiled.as_text())
  seen = mask(ranges, 40)
  for b in range(8):
    scores = 0.5 * np.einsum('hk,shk->hs', q[b, 0], np.repeat(k.stands[b], 2, 1))
    weights = np.exp(np.where(seen[b], scores, -np.inf))
    close(got[b, 0], np.einsum('hs,shk->hk', weights / weights.sum(-1, keepdims=True), np.repeat(v.stands[b], 2, 1)), 2e-5)


def test_what_it_refuses():
  call = Call(1, 4096, 128, 'bfloat16', Kind(), None, 'gpu', 9.0)
  assert decode_refusal(call) is None
  assert decode_refusal(call._replace(queries=17)) == '17 queries are more than 16'
  assert 'not on cpu' in str(decode_refusal(call._replace(platform='cpu')))
  with pytest.raises(ValueError, match='pages of 24 positions: use a power of two'):
    held = Paged(jnp.zeros((2, 24, 1, 16)), jnp.zeros((1, 2), jnp.int32))
    decode(jnp.zeros((1, 1, 1, 16)), held, held, cached_ranges(jnp.zeros(1, jnp.int32), jnp.ones((1, 1), bool)), scale=1.0,
           softcap=None, interpret=True)


@pytest.mark.parametrize('lay', LAYS)
def test_lowers_for_the_chip(lay):
  """With its own blocks, for a chip that is not here: one kernel, and no key is moved before it."""
  if jax.__version_info__ >= (0, 11):
    pytest.skip('from 0.11 on jax asks for a card')
  case = cache([40, 7], 1, 512, heads=16, key_heads=4, head_size=64)
  q, k, v, _ = operands(case, 'bfloat16')
  held = [jax.tree.map(lambda x: x.swapaxes(1, 2) if x.ndim > 2 else x, LAYS[lay](x).held) for x in (k, v)]

  def go(q, k, v):
    back = [jax.tree.map(lambda x: x.swapaxes(1, 2) if x.ndim > 2 else x, x) for x in (k, v)]
    return decode(q, *back, case.ranges, scale=0.125, softcap=None)

  text = jax.jit(go).trace(q, *held).lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('custom_call @__gpu$xla.gpu.triton') == 1
