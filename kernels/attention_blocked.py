"""Attention block by block in plain XLA: fast on a CPU, and of little memory on any device.

Queries are cut into blocks; a block multiplies only the keys that the `Kind` of its ranges allows, so causal attention costs
half of all scores and a sliding window costs its width. The backward pass recomputes the scores (FlashAttention, Dao et al.
2022), except where there are so few that reading them back is faster on a CPU.

Three layout choices make this fast on XLA's CPU backend at small head sizes. Scores are stored as [keys, queries]: maxima and
sums then run along vector lanes, and the matmuls of the backward pass contract the last dimension of their left operand, the
only layout that XLA neither transposes nor widens first. Batch and heads lead, since a product whose batch dimensions do not
lead is transposed too. Query heads that share a key head become more columns of one product.

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
KEPT = 2**24                          # most scores of a call that the CPU keeps for the backward pass: 64 MB


@dataclass(frozen=True)
class Plan:
  """The static arguments of a call."""

  kind: Kind
  scale: float
  softcap: float | None
  keep: bool                          # whether the exponentials are kept for the backward pass, or recomputed there


class Block(NamedTuple):
  """The queries [start, stop) and the keys [a, b) that they can attend to."""

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

  On the CPU all arithmetic is float32; elsewhere matmuls take operands in q's dtype and give float32. Under `jax.checkpoint`
  the name 'attention' saves what the backward pass needs of the forward pass.
  """
  cpu = jax.default_backend() == 'cpu'
  cells = q_BLHK.shape[0] * q_BLHK.shape[2] * sum(
    (block.stop - block.start) * (block.b - block.a) for block in blocks(q_BLHK.shape[1], k_BSGK.shape[1], ranges.kind))
  plan = Plan(ranges.kind, scale, softcap, keep=cpu and softcap is None and cells <= KEPT)
  q, k, v = (x.astype(jnp.float32 if cpu else q_BLHK.dtype) for x in (q_BLHK, k_BSGK, v_BSGK))
  bounds = jax.lax.optimization_barrier((ranges.first_BL, ranges.last_BL))     # else XLA recomputes them for each score
  return _attend(q, k, v, *bounds, plan).astype(q_BLHK.dtype)


def blocks(length: int, size: int, kind: Kind) -> list[Block]:
  """The blocks of a call: small enough to skip most masked scores, and few, since each is compiled."""
  step = max(SMALL if length <= 4 * SMALL else LARGE, -(-length // (MOST_BLOCKS * SMALL)) * SMALL)
  spans = [(start, min(start + step, length)) for start in range(0, length, step)]
  return [Block(*span, *kind.keys(*span, size)) for span in spans]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, plan):
  return _forward(q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, plan)[0]


def _forward(q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, plan):
  k_BGSK, v_BGKS = k_BSGK.transpose(0, 2, 1, 3), v_BSGK.transpose(0, 2, 3, 1)
  outs, notes = [], []
  for block in blocks(q_BLHK.shape[1], k_BSGK.shape[1], plan.kind):
    scores_BGSN = _scores(k_BGSK, _columns(q_BLHK, block, k_BSGK.shape[2]), first_BL, last_BL, block, plan)
    top = scores_BGSN.max(2, keepdims=True)
    top = jnp.where(top > -jnp.inf, top, 0)
    exps_BGSN = jnp.exp(scores_BGSN - top)
    total = exps_BGSN.sum(2, keepdims=True)
    share = 1 / jnp.where(total > 0, total, 1)
    outs.append(_rows(share * _product(v_BGKS[..., block.keys], exps_BGSN, 3, 2), block))
    notes.append((*checkpoint_name((top, share), 'attention'), exps_BGSN if plan.keep else None))
  out_BLHK = checkpoint_name(jnp.concatenate(outs, 1).astype(q_BLHK.dtype), 'attention')
  return out_BLHK, (q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, out_BLHK, notes)


def _backward(plan, saved, g_BLHK):
  q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, out_BLHK, notes = saved
  k_BGSK, v_BGSK, k_BGKS = k_BSGK.transpose(0, 2, 1, 3), v_BSGK.transpose(0, 2, 1, 3), k_BSGK.transpose(0, 2, 3, 1)
  mean_BLH1 = jnp.einsum('BLHK,BLHK->BLH', out_BLHK, g_BLHK, preferred_element_type=jnp.float32)[..., None]
  cuts = blocks(q_BLHK.shape[1], k_BSGK.shape[1], plan.kind)
  dqs, dks, dvs = [], [], []
  for block, (top, share, exps_BGSN) in zip(cuts, notes):
    q_BGNK, g_BGNK, mean_BGN1 = (_columns(x, block, k_BSGK.shape[2]) for x in (q_BLHK, g_BLHK, mean_BLH1))
    uncapped = 1
    if not plan.keep:
      again = jax.lax.optimization_barrier(q_BGNK)      # else XLA would keep the forward pass's scores in memory
      scores_BGSN = _scores(k_BGSK, again, first_BL, last_BL, block, plan)
      exps_BGSN = jnp.exp(scores_BGSN - top)
      uncapped = _cap_gradient(scores_BGSN, plan.softcap)
    g_BGNK = (g_BGNK * share.swapaxes(2, 3)).astype(q_BGNK.dtype)
    pull_BGSN = _product(v_BGSK[:, :, block.keys], g_BGNK, 3, 3) - share * mean_BGN1.swapaxes(2, 3)
    dscores_BGSN = plan.scale * exps_BGSN * pull_BGSN * uncapped
    dvs.append(_product(exps_BGSN, g_BGNK, 3, 2))
    dks.append(_product(dscores_BGSN, q_BGNK, 3, 2))
    dqs.append(_rows(_product(k_BGKS[..., block.keys], dscores_BGSN, 3, 2), block))
  dk, dv = (_laid(parts, cuts, x) for parts, x in ((dks, k_BSGK), (dvs, v_BSGK)))
  return jnp.concatenate(dqs, 1).astype(q_BLHK.dtype), dk, dv, None, None


_attend.defvjp(_forward, _backward)


def _columns(x_BLHK, block, heads):
  """A block of rows, with query heads that share a key head one after another: [B, G, N, K]; `heads` is G."""
  batch, _, _, size = x_BLHK.shape
  x = x_BLHK[:, block.start:block.stop].reshape(batch, block.stop - block.start, heads, -1, size)
  return x.transpose(0, 2, 3, 1, 4).reshape(batch, heads, -1, size)


def _rows(x_BGKN, block):
  """The inverse of `_columns`, from [B, G, K, N]: [B, T, H, K]."""
  batch, heads, size, _ = x_BGKN.shape
  length = block.stop - block.start
  return x_BGKN.reshape(batch, heads, size, -1, length).transpose(0, 4, 1, 3, 2).reshape(batch, length, -1, size)


def _product(a, b, i, j):
  """a times b for each row and head, contracting dimensions i and j: operands cast to the narrower dtype, result f32."""
  dtype = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
  dims = (((i,), (j,)), ((0, 1), (0, 1)))
  return jax.lax.dot_general(a.astype(dtype), b.astype(dtype), dims, preferred_element_type=jnp.float32)


def _scores(k_BGSK, q_BGNK, first_BL, last_BL, block, plan):
  """The block's scores [B, G, S, N], scaled and capped; -inf where the key is outside of the query's range."""
  scores = plan.scale * _product(k_BGSK[:, :, block.keys], q_BGNK, 3, 3)
  if plan.softcap is not None:
    scores = plan.softcap * jnp.tanh(scores / plan.softcap)
  if plan.kind.within(*block):
    return scores
  shared = q_BGNK.shape[2] // (block.stop - block.start)
  first, last = (jnp.tile(x[:, block.start:block.stop], (1, shared))[:, None, None] for x in (first_BL, last_BL))
  keys = jnp.arange(block.a, block.b)[:, None]
  return jax.lax.optimization_barrier(jnp.where((keys >= first) & (keys < last), scores, -jnp.inf))    # masked once


def _cap_gradient(scores, softcap):
  """The derivative of the soft cap, as a function of the capped scores; 1 where they are masked."""
  return 1 if softcap is None else 1 - jnp.where(scores > -jnp.inf, scores / softcap, 0) ** 2


def _laid(parts, cuts, like_BSGK):
  """The sum over blocks of the gradients of their keys, each at the positions of its keys: [B, S, G, K]."""
  size = like_BSGK.shape[1]
  padded = (jnp.pad(part, ((0, 0), (0, 0), (cut.a, size - cut.b), (0, 0))) for part, cut in zip(parts, cuts))
  return sum(padded).transpose(0, 2, 1, 3).astype(like_BSGK.dtype)
