"""Laws of `kernels.ranges`: each constructor gives the mask that is written out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from kernels.ranges import Kind, Ranges, cached_ranges, causal_ranges, packed_ranges, prefix_ranges

L = 9
SEGMENTS = np.array([[1, 1, 1, 2, 2, 3, 3, 3, 3], [1, 1, 0, 0, 2, 2, 2, 0, 0], [0] * 9, [5] * 9])
rows, keys = np.arange(L)[:, None], np.arange(L)[None]


def mask(ranges, size=L):
  slots = np.arange(size)
  first, last = np.asarray(ranges.first_BL)[..., None], np.asarray(ranges.last_BL)[..., None]
  return (slots >= first) & (slots < last)


@pytest.mark.parametrize('window', [None, 1, 3, 20])
def test_causal(window):
  expected = (keys <= rows) & (rows - keys < (window or L))
  np.testing.assert_array_equal(mask(causal_ranges(2, L, window)), np.stack([expected] * 2))


@pytest.mark.parametrize('window', [None, 1, 2, 20])
@pytest.mark.parametrize('causal', [True, False])
def test_packed(causal, window):
  same = (SEGMENTS[:, :, None] == SEGMENTS[:, None, :]) & (SEGMENTS != 0)[:, :, None]
  expected = same & (abs(rows - keys) < (window or L)) & ((keys <= rows) | (not causal))
  np.testing.assert_array_equal(mask(packed_ranges(jnp.asarray(SEGMENTS), causal, window)), expected)


def test_prefix():
  prefix = np.array([0, 4, 9])
  np.testing.assert_array_equal(mask(prefix_ranges(jnp.asarray(prefix), L)), (keys <= rows) | (keys < prefix[:, None, None]))


@pytest.mark.parametrize('window', [None, 3])
def test_cached(window):
  """Two new rows in a cache of 9 slots; the second row of the second example is padding."""
  starts, seen = np.array([0, 5, 7]), np.array([[1, 1], [1, 0], [1, 1]], bool)
  slot = starts[:, None, None] + np.arange(2)[None, :, None]
  expected = (keys[None] <= slot) & (slot - keys[None] < (window or L)) & seen[..., None]
  np.testing.assert_array_equal(mask(cached_ranges(jnp.asarray(starts), jnp.asarray(seen), window)), expected)


def test_intersection():
  a, b = packed_ranges(jnp.asarray(SEGMENTS)), causal_ranges(len(SEGMENTS), L, 2)
  np.testing.assert_array_equal(mask(a & b), mask(a) & mask(b))
  assert (a & b).kind == Kind(before=1, after=0)


ALL = [causal_ranges(4, L), causal_ranges(4, L, 3), packed_ranges(jnp.asarray(SEGMENTS)),
       Ranges(*[jnp.ones((4, L))] * 2, Kind()), packed_ranges(jnp.asarray(SEGMENTS), causal=False, window=3),
       prefix_ranges(jnp.asarray([0, 2, 4, 9]), L)]


@pytest.mark.parametrize('ranges', ALL, ids=lambda r: str(r.kind))
def test_kind_promises_only_what_the_arrays_keep(ranges):
  """A block's keys hold all that its rows see; where it is said to see all of them, it does."""
  for start in range(L):
    for stop in range(start + 1, L + 1):
      seen = mask(ranges)[:, start:stop]
      a, b = ranges.kind.keys(start, stop, L)
      assert not seen[..., :a].any() and not seen[..., b:].any()
      for c in range(a, b):
        assert seen[..., a:c].all() or not ranges.kind.within(start, stop, a, c)


def test_kind_skips_what_it_should():
  """Causal blocks skip the upper triangle, windows what lies before them, and the inside of a band needs no mask."""
  assert Kind(after=0).keys(4, 8, 16) == (0, 8)
  assert Kind(before=2, after=0).keys(4, 8, 16) == (2, 8)
  assert Kind().keys(4, 8, 16) == (0, 16)
  assert Kind(after=0, exact=True).within(4, 8, 0, 4) and not Kind(after=0).within(4, 8, 0, 4)
  assert causal_ranges(1, 4, 3).kind.window == 3 and packed_ranges(jnp.ones((1, 4))).kind.causal


def test_a_window_of_nothing_is_refused():
  with pytest.raises(ValueError, match='a row sees itself'):
    causal_ranges(1, 4, window=0)
