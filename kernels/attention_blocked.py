"""Attention block by block in plain XLA: the form that is fast on a CPU, and small anywhere.

Queries are cut into blocks; a block multiplies only the keys that the kind of its ranges lets it see, so a causal row
pays for half of the square and a window for its width. The backward pass recomputes the scores from the saved
log-sum-exp (Dao et al. 2022), which on the CPU costs what reading them back would.

Three choices are about XLA's CPU backend at small head sizes. Scores are held as [keys, queries]: maxima and sums run
along vector lanes, and the products of the backward pass contract the last dimension of their left operand, the only
form that is not transposed or widened first. Heads lead, for a product whose batch does not lead is transposed too.
And query heads that share a key head lie side by side, as more columns.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size,
T queries of a block, N = R T columns of its scores.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from kernels.ranges import Kind, Ranges

SMALL, LARGE, MOST_BLOCKS = 64, 128, 8


@dataclass(frozen=True)
class Plan:
  """The static half of a call."""

  kind: Kind
  scale: float
  softcap: float | None


class Block(NamedTuple):
  """The queries [start, stop) and the keys [a, b) that they can see."""

  start: int
  stop: int
  a: int
  b: int

  @property
  def keys(self) -> slice:
    return slice(self.a, self.b)


def blocked(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, ranges: Ranges, *, scale: float,
            softcap: float | None) -> jax.Array:
  """softmax(q k) v over each row's range: [B, L, H, K] in q's dtype. Holds the scores of one block at a time.

  On the CPU all arithmetic is float32; elsewhere products take operands in q's dtype and give float32. Under
  rematerialisation the name 'attention' saves what the backward pass needs of the forward one.
  """
  wide = jnp.float32 if jax.default_backend() == 'cpu' else q_BLHK.dtype
  q, k, v = (x.astype(wide) for x in (q_BLHK, k_BSGK, v_BSGK))
  out = _attend(q, k, v, ranges.first_BL, ranges.last_BL, Plan(ranges.kind, scale, softcap))
  return out.astype(q_BLHK.dtype)


def blocks(length: int, size: int, kind: Kind) -> list[Block]:
  """The blocks of a call: small enough to skip much of the square, and few, since each is compiled."""
  step = max(SMALL if length <= 4 * SMALL else LARGE, -(-length // (MOST_BLOCKS * SMALL)) * SMALL)
  spans = [(start, min(start + step, length)) for start in range(0, length, step)]
  return [Block(*span, *kind.keys(*span, size)) for span in spans]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, plan):
  return _forward(q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, plan)[0]


def _forward(q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, plan):
  k_BGSK, v_BGKS = k_BSGK.transpose(0, 2, 1, 3), v_BSGK.transpose(0, 2, 3, 1)
  outs, lses = [], []
  for block in blocks(q_BLHK.shape[1], k_BSGK.shape[1], plan.kind):
    q_BGNK = _columns(q_BLHK, block, k_BSGK.shape[2])
    scores_BGSN = _scores(k_BGSK[:, :, block.keys], q_BGNK, plan)
    seen = _seen(first_BL, last_BL, block, plan.kind, scores_BGSN.shape)
    top = jnp.max(scores_BGSN, 2, keepdims=True, initial=-jnp.inf, where=seen)
    weights_BGSN = jnp.where(seen, jnp.exp(scores_BGSN - top), 0)
    total = weights_BGSN.sum(2, keepdims=True)
    total = jnp.where(total > 0, total, 1)
    out_BGKN = _product(v_BGKS[..., block.keys], weights_BGSN, 3, 2) / total
    outs.append(_rows(out_BGKN, block))
    lses.append(checkpoint_name(top + jnp.log(total), 'attention'))
  out_BLHK = checkpoint_name(jnp.concatenate(outs, 1).astype(q_BLHK.dtype), 'attention')
  return out_BLHK, (q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, out_BLHK, lses)


def _backward(plan, saved, g_BLHK):
  q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, out_BLHK, lses = saved
  k_BGSK, v_BGSK, k_BGKS = k_BSGK.transpose(0, 2, 1, 3), v_BSGK.transpose(0, 2, 1, 3), k_BSGK.transpose(0, 2, 3, 1)
  mean_BLH1 = jnp.einsum('BLHK,BLHK->BLH', out_BLHK, g_BLHK, preferred_element_type=jnp.float32)[..., None]
  cuts = blocks(q_BLHK.shape[1], k_BSGK.shape[1], plan.kind)
  dqs, dks, dvs = [], [], []
  for block, lse in zip(cuts, lses):
    q_BGNK, g_BGNK, mean_BGN1 = (_columns(x, block, k_BSGK.shape[2]) for x in (q_BLHK, g_BLHK, mean_BLH1))
    scores_BGSN = _scores(k_BGSK[:, :, block.keys], q_BGNK, plan)
    seen = _seen(first_BL, last_BL, block, plan.kind, scores_BGSN.shape)
    weights_BGSN = jnp.where(seen, jnp.exp(scores_BGSN - lse), 0)
    pull_BGSN = _product(v_BGSK[:, :, block.keys], g_BGNK, 3, 3) - mean_BGN1.swapaxes(2, 3)
    dscores_BGSN = plan.scale * _uncapped(weights_BGSN * pull_BGSN, scores_BGSN, plan.softcap)
    dvs.append(_product(weights_BGSN, g_BGNK, 3, 2))
    dks.append(_product(dscores_BGSN, q_BGNK, 3, 2))
    dqs.append(_rows(_product(k_BGKS[..., block.keys], dscores_BGSN, 3, 2), block))
  dk, dv = (_laid(parts, cuts, x) for parts, x in ((dks, k_BSGK), (dvs, v_BSGK)))
  return jnp.concatenate(dqs, 1).astype(q_BLHK.dtype), dk, dv, None, None


_attend.defvjp(_forward, _backward)


def _columns(x_BLHK, block, heads):
  """The block's rows with the heads that share one of `heads` side by side: [B, G, N, K]."""
  batch, _, _, size = x_BLHK.shape
  x = x_BLHK[:, block.start:block.stop].reshape(batch, block.stop - block.start, heads, -1, size)
  return x.transpose(0, 2, 3, 1, 4).reshape(batch, heads, -1, size)


def _rows(x_BGKN, block):
  """A block's columns as rows again: [B, T, H, K]."""
  batch, heads, size, _ = x_BGKN.shape
  length = block.stop - block.start
  return x_BGKN.reshape(batch, heads, size, -1, length).transpose(0, 4, 1, 3, 2).reshape(batch, length, -1, size)


def _product(a, b, i, j):
  """The product of a and b for each batch row and head, over dimension i of a and j of b, in float32."""
  dims = (((i,), (j,)), ((0, 1), (0, 1)))
  return jax.lax.dot_general(a, b.astype(a.dtype), dims, preferred_element_type=jnp.float32)


def _scores(k_BGSK, q_BGNK, plan):
  scores = plan.scale * _product(k_BGSK, q_BGNK, 3, 3)
  return scores if plan.softcap is None else plan.softcap * jnp.tanh(scores / plan.softcap)


def _uncapped(dscores, scores, softcap):
  """The gradient before the soft cap, given that of the capped scores."""
  return dscores if softcap is None else dscores * (1 - (scores / softcap) ** 2)


def _seen(first_BL, last_BL, block, kind, shape):
  """Which keys each column sees, bool, broadcast to the scores; True where all surely see all."""
  start, stop, a, b = block
  if kind.within(start, stop, a, b):
    return True
  shared = shape[3] // (stop - start)
  first, last = (jnp.tile(x[:, start:stop], (1, shared))[:, None, None] for x in (first_BL, last_BL))
  keys = jnp.arange(a, b)[:, None]
  return jnp.broadcast_to((keys >= first) & (keys < last), shape)


def _laid(parts, cuts, like_BSGK):
  """What each block gives to its keys, laid in place and added up: [B, S, G, K]."""
  size = like_BSGK.shape[1]
  padded = (jnp.pad(part, ((0, 0), (0, 0), (cut.a, size - cut.b), (0, 0))) for part, cut in zip(parts, cuts))
  return sum(padded).transpose(0, 2, 1, 3).astype(like_BSGK.dtype)
