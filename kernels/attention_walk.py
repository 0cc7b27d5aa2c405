"""Blocked attention as XLA loops, with log-sum-exps: what ring attention runs where it has no fused kernel.

FlashAttention-2 (Dao 2023) in `jnp`: blocks of queries one after another, each looping over the blocks of keys within its
bounds, which may depend on values at run time, as they do in a ring. Where the `Kind` of the ranges is known while tracing,
`kernels.attention_blocked` is faster.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, K head size, N blocks of T
queries or of T keys.
"""

import jax
import jax.numpy as jnp

from kernels.attention_bounds import FAR, key_bounds
from kernels.attention_fused import LOWEST, Kernels, Plan

SMALL, LARGE = 128, 1024              # most T: on a CPU, and on accelerators (not measured)


def tile_for(positions: int) -> int:
  """T, for chunks of so many contiguous positions."""
  return min(positions, SMALL if jax.default_backend() == 'cpu' else LARGE)


def forward(plan: Plan, q_BLGRK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, first_BL: jax.Array,
            last_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
  """out_BLGRK and lse_BGRL of base 2, both f32: a ring adds further parts to out."""
  k_NBGTK, v_NBGTK = (_blocks(x, plan.tiles) for x in (k_BSGK, v_BSGK))

  def block(operands):
    q, first, last, start, stop = operands

    def step(j, carry):
      acc, top, total = carry
      x, scale, seen = _scores(plan, q, k_NBGTK[j], first, last, j)
      new = jnp.maximum(top, jnp.max(x * scale, -1, initial=LOWEST, where=seen))
      p, keep = jnp.where(seen, jnp.exp2(x * scale - new[..., None]), 0), jnp.exp2(top - new)
      return acc * keep[..., None] + _product('BGRTS,BGSK->BGRTK', p, v_NBGTK[j]), new, total * keep + p.sum(-1)

    nothing = jnp.zeros(q.shape, jnp.float32), jnp.full(q.shape[:-1], LOWEST, jnp.float32), jnp.zeros(q.shape[:-1])
    acc, top, total = jax.lax.fori_loop(start, stop, step, nothing)
    some = total > 0
    total = jnp.where(some, total, 1)
    return acc / total[..., None], jnp.where(some, top + jnp.log2(total), -jnp.inf)

  out_NBGRTK, lse_NBGRT = jax.lax.map(block, (_blocks(q_BLGRK, plan.tiles), *_walks(plan, first_BL, last_BL)))
  lse_BGRL = jnp.moveaxis(lse_NBGRT, 0, 3).reshape(*lse_NBGRT.shape[1:4], -1)
  return _rows(out_NBGRTK, q_BLGRK), lse_BGRL[..., :q_BLGRK.shape[1]]


def backward(plan: Plan, q_BLGRK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, first_BL: jax.Array, last_BL: jax.Array,
             lse_BGRL: jax.Array, delta_BGRL: jax.Array,
             g_BLGRK: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """dq, dk and dv, f32: a ring adds further parts."""
  k_NBGTK, v_NBGTK = (_blocks(x, plan.tiles) for x in (k_BSGK, v_BSGK))

  def block(sums, operands):
    q, g, lse, delta, first, last, start, stop = operands

    def step(j, carry):
      dq, dk_NBGTK, dv_NBGTK = carry
      x, scale, seen = _scores(plan, q, k_NBGTK[j], first, last, j)
      p = jnp.where(seen, jnp.exp2(x * scale - lse[..., None]), 0)
      pull = _product('BGRTK,BGSK->BGRTS', g, v_NBGTK[j]) - delta[..., None]
      slopes = plan.scale * plan.uncapped(x, p * pull)
      return (dq + _product('BGRTS,BGSK->BGRTK', slopes, k_NBGTK[j]),
              dk_NBGTK.at[j].add(_product('BGRTS,BGRTK->BGSK', slopes, q)),
              dv_NBGTK.at[j].add(_product('BGRTS,BGRTK->BGSK', p, g)))

    dq, *sums = jax.lax.fori_loop(start, stop, step, (jnp.zeros(q.shape, jnp.float32), *sums))
    return tuple(sums), dq

  sums = jnp.zeros(k_NBGTK.shape, jnp.float32), jnp.zeros(k_NBGTK.shape, jnp.float32)
  queries = (*(_blocks(x, plan.tiles) for x in (q_BLGRK, g_BLGRK)), *(_notes(x, plan.tiles) for x in (lse_BGRL, delta_BGRL)))
  sums, dq_NBGRTK = jax.lax.scan(block, sums, (*queries, *_walks(plan, first_BL, last_BL)))
  return _rows(dq_NBGRTK, q_BLGRK), *(_rows(x, k_BSGK) for x in sums)


KERNELS = Kernels(forward, backward)


def bounds(first_BL: jax.Array, last_BL: jax.Array, t: int) -> tuple[jax.Array, jax.Array]:
  """i32[N] each: the blocks of t keys [start, stop) that each block of t query rows loops over, for all batch rows."""
  start_BN, _, _, stop_BN = jnp.unstack(key_bounds(first_BL, last_BL, t, t), axis=-1)
  return jnp.where(start_BN < stop_BN, start_BN, FAR).min(0), stop_BN.max(0)


def _walks(plan, first_BL, last_BL):
  """The ranges of each block of queries, [N, B, T] each, and the blocks of keys that it loops over, [N] each."""
  ranges = ((_padded(x, 1, plan.tiles).reshape(len(x), -1, plan.tiles).swapaxes(0, 1)) for x in (first_BL, last_BL))
  return *ranges, *bounds(first_BL, last_BL, plan.tiles)


def _scores(plan, q_BGRTK, k_BGTK, first_BT, last_BT, j):
  """x and c as `Plan.logits` gives them, and the mask of block j of keys: bool[B, 1, 1, T, T]."""
  x, scale = plan.logits(_product('BGRTK,BGSK->BGRTS', q_BGRTK, k_BGTK))
  keys = j * plan.tiles + jnp.arange(plan.tiles)
  seen = (keys >= first_BT[..., None]) & (keys < last_BT[..., None])
  return x, scale, seen[:, None, None]


def _product(rule, a, b):
  """The einsum, f32, of operands cast to the narrower dtype; on a CPU, which would widen those anyway, all are float32."""
  narrow = jnp.float32 if jax.default_backend() == 'cpu' else min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
  return jnp.einsum(rule, a.astype(narrow), b.astype(narrow), preferred_element_type=jnp.float32)


def _padded(x, at, t):
  """x, zero-padded along axis `at` to whole blocks: the new rows have empty ranges, the new keys are in none."""
  return jnp.pad(x, [(0, -size % t if i == at else 0) for i, size in enumerate(x.shape)])


def _blocks(x_BLK, t):
  """[B, L, heads..., K] as [N, B, heads..., T, K]."""
  x = _padded(x_BLK, 1, t)
  return jnp.moveaxis(x.reshape(len(x), -1, t, *x.shape[2:]), (1, 2), (0, -2))


def _notes(x_BGRL, t):
  """[N, B, G, R, T]."""
  x = _padded(x_BGRL, 3, t)
  return jnp.moveaxis(x.reshape(*x.shape[:3], -1, t), 3, 0)


def _rows(x_NBTK, like):
  """The inverse of `_blocks`, cut to the length of `like`."""
  x = jnp.moveaxis(x_NBTK, (0, -2), (1, 2))
  return x.reshape(len(x), -1, *x.shape[3:])[:, :like.shape[1]]
