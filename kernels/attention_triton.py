"""Attention in one pass over the keys for NVIDIA GPUs, in Pallas with the Triton backend.

Forward and backward passes after FlashAttention-2 (Dao 2023). For the output and dq the grid is (blocks of queries, H, B): a
program holds a block of queries and loops over the blocks of keys that its rows attend to. dk and dv come from a kernel with
the grid (blocks of keys, G, B) that loops over queries: no atomics, so equal inputs give equal bits. Masks are computed from
the ranges in registers; blocks that all rows attend to in full take none.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, K head size, T queries of a
block, C keys of a block.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from kernels.attention_bounds import key_bounds, query_bounds
from kernels.attention_call import Call
from kernels.attention_fused import LOWEST, Kernels, Plan, fused
from kernels.attention_triton_blocks import Sizes, Tile, Tiles, inside, store
from kernels.ranges import Ranges

# By bytes of an element and the largest head size. Those of bfloat16 are from tokamax's tuning on an H100 (most of the entries
# without a mask in its cache, read in August 2026); others were not measured with these
# kernels yet.
TILES: dict[tuple[int, int], Tiles] = {
  (2, 64): Tiles(Tile(128, 64, 4, 3), Tile(64, 64, 4, 3), Tile(64, 64, 4, 3)),
  (2, 128): Tiles(Tile(128, 64, 8, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
  (2, 256): Tiles(Tile(128, 32, 8, 3), Tile(64, 32, 4, 2), Tile(64, 32, 4, 2)),
  (4, 64): Tiles(Tile(64, 32, 4, 2), Tile(32, 32, 4, 2), Tile(32, 32, 4, 2)),
  (4, 128): Tiles(Tile(32, 32, 4, 2), Tile(32, 32, 4, 2), Tile(32, 32, 4, 2)),
  (4, 256): Tiles(Tile(32, 16, 4, 2), Tile(16, 16, 4, 2), Tile(16, 16, 4, 2)),
}
LARGEST = 256                         # head size
LEAN = (8.6, 8.9, 12.0, 12.1)         # compute capabilities with 99 KB of shared memory; tiles of large heads take 160 KB


def triton_refusal(call: Call) -> str | None:
  """Why `triton` cannot do the call, or None: a function of the call alone, so that it can be tested without a GPU."""
  facts = {
    f'it runs on NVIDIA GPUs, not on {call.platform}': call.platform != 'gpu',
    f'it needs compute capability 8.0, not {call.capability}': call.capability < 8,
    f'it takes float32, float16 and bfloat16, not {call.dtype}': call.dtype not in ('float32', 'float16', 'bfloat16'),
    f'head size {call.head_size} is not 16 to {LARGEST}': not 16 <= call.head_size <= LARGEST,
    f'head size {call.head_size} takes more memory than compute capability {call.capability} has':
      call.head_size > 64 and call.capability in LEAN,
  }
  return next((why for why, holds in facts.items() if holds), None)


def triton(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, ranges: Ranges, *, scale: float,
           softcap: float | None, tiles: Tiles | None = None, interpret: bool = False) -> jax.Array:
  """softmax(q k) v over each row's range: [B, L, H, K] in q's dtype, accumulated in float32, with memory linear in L.

  `tiles` and `interpret` are for tests, which run small blocks without a GPU.
  """
  tiles = tiles or tiles_for(q_BLHK.dtype, q_BLHK.shape[3])
  return fused(KERNELS, Plan(ranges.kind, scale, softcap, tiles, interpret), q_BLHK, k_BSGK, v_BSGK, ranges)


def tiles_for(dtype: jnp.dtype, size: int) -> Tiles:
  """The tiles for a dtype and head size."""
  width = jnp.dtype(dtype).itemsize
  return next(tiles for (bytes_, most), tiles in TILES.items() if bytes_ == width and size <= most)


def forward(plan: Plan, q_BLGRK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, first_BL: jax.Array,
            last_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
  """out_BLGRK in q's dtype, and the log-sum-exps lse_BGRL, f32, base 2."""
  sizes = Sizes.of(q_BLGRK, k_BSGK, plan.tiles.forward)
  at = sizes.by_queries()
  bounds_BN4 = key_bounds(first_BL, last_BL, sizes.tile.t, sizes.tile.c)
  lse = jax.ShapeDtypeStruct((q_BLGRK.shape[0], *q_BLGRK.shape[2:4], sizes.length), jnp.float32)
  call = _call(_forward, plan, sizes, (sizes.blocks, q_BLGRK.shape[2] * sizes.shared, q_BLGRK.shape[0]),
               [at.query, at.key, at.key, at.row, at.row, at.bounds], [at.query, at.note], [q_BLGRK, lse])
  return call(q_BLGRK, k_BSGK, v_BSGK, first_BL, last_BL, bounds_BN4)


def backward(plan: Plan, *operands: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """dq, dk and dv; of q, k, v, first, last, lse, delta, g."""
  q_BLGRK, k_BSGK, v_BSGK, first_BL, last_BL, *_ = operands
  batch, _, groups, shared, _ = q_BLGRK.shape
  sizes = Sizes.of(q_BLGRK, k_BSGK, plan.tiles.queries)
  at = sizes.by_queries()
  bounds_BN4 = key_bounds(first_BL, last_BL, sizes.tile.t, sizes.tile.c)
  [dq] = _call(_backward_queries, plan, sizes, (sizes.blocks, groups * shared, batch), [*at.all, at.bounds], [at.query],
               [q_BLGRK])(*operands, bounds_BN4)
  sizes = Sizes.of(q_BLGRK, k_BSGK, plan.tiles.keys)
  at = sizes.by_keys()
  bounds_BM4 = query_bounds(first_BL, last_BL, sizes.keys, sizes.tile.t, sizes.tile.c)
  dk, dv = _call(_backward_keys, plan, sizes, (bounds_BM4.shape[1], groups, batch), [*at.all, at.bounds], [at.key, at.key],
                 [k_BSGK, v_BSGK])(*operands, bounds_BM4)
  return dq, dk, dv


KERNELS = Kernels(forward, backward)


def _call(kernel, plan, sizes, grid, inputs, outputs, shapes):
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in shapes]
  return pl.pallas_call(partial(kernel, plan, sizes), grid=grid, in_specs=inputs, out_specs=outputs, out_shape=shapes,
                        interpret=plan.interpret, name=kernel.__name__.strip('_'), compiler_params=plt.CompilerParams(
                          num_warps=sizes.tile.warps, num_stages=sizes.tile.stages))


def _forward(plan, sizes, q_ref, k_ref, v_ref, first_ref, last_ref, bounds_ref, out_ref, lse_ref):
  i, (t, c, *_) = sizes.blocks - 1 - pl.program_id(0), sizes.tile
  q_TK = sizes.queries(q_ref, i)
  first_T1, last_T1 = (sizes.rows(ref, i)[:, None] for ref in (first_ref, last_ref))

  def step(whole, j, carry):
    acc_TK, top_T, total_T = carry
    part = pl.ds(j * c, c)
    k_CK, v_CK = (sizes.slots(ref.at[part], j, whole=whole) for ref in (k_ref, v_ref))
    x_TC, scale = plan.logits(plt.dot(q_TK, k_CK, trans_b=True))
    if not whole:
      x_TC = jnp.where(_seen(j * c + jnp.arange(c)[None], first_T1, last_T1), x_TC, -jnp.inf)
    new_T = jnp.maximum(top_T, jnp.max(x_TC, 1) * scale)
    p_TC, keep_T = jnp.exp2(x_TC * scale - new_T[:, None]), jnp.exp2(top_T - new_T)
    acc_TK = acc_TK * keep_T[:, None] + plt.dot(p_TC.astype(v_CK.dtype), v_CK)
    return acc_TK, new_T, total_T * keep_T + jnp.sum(p_TC, 1)

  start = jnp.zeros((t, sizes.width), jnp.float32), jnp.full(t, LOWEST, jnp.float32), jnp.zeros(t, jnp.float32)
  acc_TK, top_T, total_T = _walk(bounds_ref, step, start)
  some_T = total_T > 0
  total_T = jnp.where(some_T, total_T, 1.0)
  store(out_ref, acc_TK / total_T[:, None], i, sizes.length, sizes.size)
  plt.store(lse_ref, jnp.where(some_T, top_T + jnp.log2(total_T), -jnp.inf), mask=inside(lse_ref, i, sizes.length))


def _backward_queries(plan, sizes, q_ref, k_ref, v_ref, first_ref, last_ref, lse_ref, delta_ref, g_ref, bounds_ref, dq_ref):
  i, (t, c, *_) = sizes.blocks - 1 - pl.program_id(0), sizes.tile
  q_TK, g_TK = (sizes.queries(ref, i) for ref in (q_ref, g_ref))
  first_T1, last_T1, lse_T1, delta_T1 = (sizes.rows(ref, i)[:, None] for ref in (first_ref, last_ref, lse_ref, delta_ref))

  def step(whole, j, dq_TK):
    part = pl.ds(j * c, c)
    k_CK, v_CK = (sizes.slots(ref.at[part], j, whole=whole) for ref in (k_ref, v_ref))
    x_TC, scale = plan.logits(plt.dot(q_TK, k_CK, trans_b=True))
    p_TC = jnp.exp2(x_TC * scale - lse_T1)
    if not whole:
      p_TC = jnp.where(_seen(j * c + jnp.arange(c)[None], first_T1, last_T1), p_TC, 0.0)
    slopes_TC = plan.uncapped(x_TC, p_TC * (plt.dot(g_TK, v_CK, trans_b=True) - delta_T1))
    return dq_TK + plt.dot(slopes_TC.astype(k_CK.dtype), k_CK)

  dq_TK = _walk(bounds_ref, step, jnp.zeros((t, sizes.width), jnp.float32))
  store(dq_ref, dq_TK * plan.scale, i, sizes.length, sizes.size)


def _backward_keys(plan, sizes, q_ref, k_ref, v_ref, first_ref, last_ref, lse_ref, delta_ref, g_ref, bounds_ref, dk_ref,
                   dv_ref):
  j, (t, c, *_) = pl.program_id(0), sizes.tile
  k_CK, v_CK = (sizes.slots(ref, j) for ref in (k_ref, v_ref))
  keys_C1 = (j * c + jnp.arange(c))[:, None]

  def step(r, whole, i, carry):
    dk_CK, dv_CK = carry
    part = pl.ds(i * t, t)
    q_TK, g_TK = (sizes.queries(ref.at[part, r], i, whole=whole) for ref in (q_ref, g_ref))
    lse_1T, delta_1T = (sizes.rows(ref.at[r, part], i, whole=whole)[None] for ref in (lse_ref, delta_ref))
    x_CT, scale = plan.logits(plt.dot(k_CK, q_TK, trans_b=True))
    p_CT = jnp.exp2(x_CT * scale - lse_1T)
    if not whole:
      first_1T, last_1T = (sizes.rows(ref.at[part], i)[None] for ref in (first_ref, last_ref))
      p_CT = jnp.where(_seen(keys_C1, first_1T, last_1T), p_CT, 0.0)
    slopes_CT = plan.uncapped(x_CT, p_CT * (plt.dot(v_CK, g_TK, trans_b=True) - delta_1T))
    return (dk_CK + plt.dot(slopes_CT.astype(q_TK.dtype), q_TK), dv_CK + plt.dot(p_CT.astype(g_TK.dtype), g_TK))

  zeros = jnp.zeros((c, sizes.width), jnp.float32)
  dk_CK, dv_CK = jax.lax.fori_loop(0, sizes.shared, lambda r, carry: _walk(bounds_ref, partial(step, r), carry), (zeros, zeros))
  store(dk_ref, dk_CK * plan.scale, j, sizes.keys, sizes.size)
  store(dv_ref, dv_CK, j, sizes.keys, sizes.size)


def _walk(bounds_ref, step, carry):
  """Loops `step(whole, block, carry)` over the blocks of the bounds; `whole`: the block needs no mask."""
  start, whole, past, stop = (bounds_ref[n] for n in range(4))
  carry = jax.lax.fori_loop(start, whole, partial(step, False), carry)
  carry = jax.lax.fori_loop(whole, past, partial(step, True), carry)
  return jax.lax.fori_loop(past, stop, partial(step, False), carry)


def _seen(keys, first, last):
  return (keys >= first) & (keys < last)
