"""The test cases of all implementations of attention, and their values and gradients by a softmax in float64.

Tests of an implementation run the cases in blocks of a few rows, so that each has several and the last one is short.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.ranges import Kind, Ranges, cached_ranges, causal_ranges, packed_ranges, prefix_ranges

SEGMENTS = np.array([[1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3], [1, 1, 0, 0, 2, 2, 2, 2, 2, 2, 0]])
RANDOM = np.sort(np.random.default_rng(5).integers(-2, 14, (2, 2, 11)), axis=0)     # empty ones and some that reach out


class Case(NamedTuple):
  """Two batch rows of queries and keys, and their ranges."""

  ranges: Ranges
  keys: int = 11
  heads: int = 2
  key_heads: int = 2
  head_size: int = 4
  softcap: float | None = None
  scale: float = 0.5

  @property
  def queries(self) -> int:
    return self.ranges.first_BL.shape[1]


packed = packed_ranges(jnp.asarray(SEGMENTS))
unseen = jnp.asarray([[True] * 3, [True, True, False]])
CASES = {
  'causal': Case(causal_ranges(2, 11)),
  'one token': Case(causal_ranges(2, 1), keys=1),
  'grouped': Case(causal_ranges(2, 11), heads=6, key_heads=2),
  'one key head': Case(packed, heads=3, key_heads=1, head_size=5),
  'window of 1': Case(causal_ranges(2, 11, 1)),
  'window over blocks': Case(causal_ranges(2, 11, 6), head_size=8),
  'window wider than the row': Case(causal_ranges(2, 11, 50)),
  'packed': Case(packed),
  'packed, window, cap, grouped': Case(packed_ranges(jnp.asarray(SEGMENTS), window=2), softcap=2.0, heads=4),
  'bidirectional': Case(packed_ranges(jnp.asarray(SEGMENTS), causal=False)),
  'bidirectional window': Case(packed_ranges(jnp.asarray(SEGMENTS), causal=False, window=2)),
  'prefix of documents': Case(prefix_ranges(jnp.asarray([3, 6]), 11) & packed_ranges(jnp.asarray(SEGMENTS), causal=False)),
  'cache': Case(cached_ranges(jnp.asarray([0, 7]), unseen), heads=4),
  'cache, one token, window': Case(cached_ranges(jnp.asarray([2, 10]), jnp.ones((2, 1), bool), 3)),
  'random ranges': Case(Ranges(*jnp.asarray(RANDOM, jnp.int32), Kind())),
  'huge scores': Case(causal_ranges(2, 11), scale=1e3),
  'cap': Case(causal_ranges(2, 11), softcap=3.0, scale=2.0),
}

LONG = 37                              # rows of heads that kernels take: three blocks of 16, the last of them short
DOCUMENTS = jnp.asarray([[1] * 20 + [2] * 3 + [3] * 14, [0] * 2 + [1] * 33 + [0] * 2])
SCATTERED = np.sort(np.random.default_rng(6).integers(-3, LONG + 3, (2, 2, LONG)), axis=0)
SCATTERED[:, 0, 16:32] = 5             # a whole block of rows that see nothing
many = packed_ranges(DOCUMENTS)
WIDE = {
  'heads of 32, causal': Case(causal_ranges(2, LONG), keys=LONG, head_size=32, scale=0.2),
  'heads of 64, packed, groups of 2': Case(many, keys=LONG, heads=4, key_heads=2, head_size=64, scale=0.125),
  'heads of 80, window, groups of 4': Case(causal_ranges(2, LONG, 9), keys=LONG, heads=4, key_heads=1, head_size=80, scale=0.1),
  'heads of 128, both sides, cap': Case(packed_ranges(DOCUMENTS, causal=False, window=12), keys=LONG, head_size=128, scale=0.3,
                                        softcap=1.5),
  'heads of 256, prefix of documents': Case(prefix_ranges(jnp.asarray([18, 6]), LONG) & packed_ranges(DOCUMENTS, causal=False),
                                            keys=LONG, heads=1, key_heads=1, head_size=256, scale=0.0625),
  'groups of 8, scattered, cap': Case(Ranges(*jnp.asarray(SCATTERED, jnp.int32), Kind()), keys=LONG, heads=8, key_heads=1,
                                      head_size=32, scale=0.4, softcap=3.0),
  'one wide token': Case(causal_ranges(2, 1), keys=1, head_size=64, scale=0.125),
  'cache of wide heads': Case(cached_ranges(jnp.asarray([0, 31]), jnp.asarray([[True] * 5, [True] * 4 + [False]]), 20), keys=40,
                              heads=4, head_size=32, scale=0.2),
}
CASES |= WIDE


def operands(case, dtype=np.float32, seed=0):
  """q, k, v and the gradient of the result, rounded to the type that they are handed over in."""
  rng = np.random.default_rng(seed)
  shapes = [(2, case.queries, case.heads), (2, case.keys, case.key_heads), (2, case.keys, case.key_heads)]
  return tuple(jnp.asarray(rng.normal(size=(*shape, case.head_size)), dtype) for shape in [*shapes, shapes[0]])


def mask(ranges, keys):
  slots = np.arange(keys)
  return (slots >= np.asarray(ranges.first_BL)[..., None]) & (slots < np.asarray(ranges.last_BL)[..., None])


def truth(case, q, k, v, g):
  """The result and the gradients of q, k, v, in float64 and head by head."""
  q, k, v, g = (np.asarray(a.astype(jnp.float32), np.float64) for a in (q, k, v, g))
  seen = mask(case.ranges, case.keys)
  out, dq, dk, dv = np.zeros_like(q), np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
  for h in range(case.heads):
    shared = h * case.key_heads // case.heads
    raw = case.scale * np.einsum('blk,bsk->bls', q[:, :, h], k[:, :, shared])
    scores = raw if case.softcap is None else case.softcap * np.tanh(raw / case.softcap)
    scores = np.where(seen, scores, -np.inf)
    top = np.where(seen.any(-1, keepdims=True), scores.max(-1, keepdims=True), 0)
    weights = np.exp(scores - top)
    weights /= np.where(seen.any(-1, keepdims=True), weights.sum(-1, keepdims=True), 1)
    out[:, :, h] = weights @ v[:, :, shared]
    dweights = np.einsum('blk,bsk->bls', g[:, :, h], v[:, :, shared])
    dscores = weights * (dweights - (weights * dweights).sum(-1, keepdims=True)) * case.scale
    if case.softcap is not None:
      dscores *= 1 - np.tanh(raw / case.softcap) ** 2
    dq[:, :, h] = dscores @ k[:, :, shared]
    dk[:, :, shared] += np.einsum('bls,blk->bsk', dscores, q[:, :, h])
    dv[:, :, shared] += np.einsum('bls,blk->bsk', weights, g[:, :, h])
  return out, dq, dk, dv


def gradients(case: Case, attend: Callable[..., jax.Array], q, k, v, g):
  """The result and the gradients of q, k, v."""
  out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, case.ranges, scale=case.scale, softcap=case.softcap), q, k, v)
  return out, *pull(g)


def close(got, expected, tolerance):
  got = np.asarray(jnp.asarray(got, jnp.float32))
  np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * max(1, np.abs(expected).max()))
