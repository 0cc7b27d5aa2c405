"""The backward pass of kernels.attention_hopper in one kernel of five matmuls: scores are computed once for dq, dk and dv.

The grid is (B, G / near, blocks of keys, near heads side by side). A program owns a block of keys and loops over the queries
that attend to it; after FlashAttention-3 (Shah et al. 2024). Its part of dq is added to a float32 sum in global memory, in the
order of the keys, so that equal inputs give equal bits: a semaphore for each block of queries counts the parts added so far.

No deadlock: programs start in the order of their keys and wait only for earlier ones, so the earliest unfinished program never
waits. Little waiting: all loop from their last queries down, so programs that start together reach a block one after another.
Simulated on 132 multiprocessors, where adding a part takes 0.4 to 0.8 of a loop step, waiting costs 0 to 3% of the time (up to
10% with short documents); with loops from the first queries up it would cost 12 to 300%.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size, T keys
of a warpgroup, P of a program, C queries of a block, N blocks of queries, M blocks of keys.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plg

from kernels import attention_hopper_blocks as parts
from kernels.attention_bounds import key_bounds, query_bounds
from kernels.attention_fused import Plan
from kernels.attention_hopper_blocks import Tile, Walk

# By head size; none for larger heads, whose dk and dv would not fit into the registers of two warpgroups. Not measured yet.
TILES: dict[int, Tile] = {64: Tile(64, 128, 4), 128: Tile(64, 64, 5)}
BESIDE = 16                            # most heads side by side: more wait less, fewer share the L2 cache better
TWICE = 2                              # buffers of the scores' gradients: the other warpgroup may still read the last block's


def backward(plan: Plan, *operands: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """dq, dk and dv; of q, k, v, first, last, lse, delta, g."""
  q_BLGRK, k_BSGK, v_BSGK, first_BL, last_BL, lse_BGRL, delta_BGRL, g_BLGRK = operands
  tile: Tile = plan.tiles.backward
  q_BLHK, g_BLHK = parts.by_heads(q_BLGRK), parts.by_heads(g_BLGRK)
  k, v = (parts.padded(x, 1, parts.EIGHT) for x in (k_BSGK, v_BSGK))
  ranges_B2L = jnp.stack([parts.padded(x, 1, tile.c) for x in (first_BL, last_BL)], 1)
  notes_BH2L = jnp.stack([parts.padded(x.reshape(*x.shape[:1], -1, x.shape[-1]), 2, tile.c) for x in (lse_BGRL, delta_BGRL)], 2)
  bounds_BM4 = query_bounds(first_BL, last_BL, k.shape[1], tile.c, tile.span)
  turns_BN4 = key_bounds(first_BL, last_BL, tile.c, tile.span)
  sums, dk, dv = _run(plan, tile, q_BLHK, k, v, ranges_B2L, notes_BH2L, g_BLHK, bounds_BM4, turns_BN4)
  # Rows of dq with an empty range may never have been written.
  sums_BLGRK = jnp.where((first_BL < last_BL)[..., None, None, None], sums[:, :q_BLGRK.shape[1]].reshape(q_BLGRK.shape), 0)
  return (sums_BLGRK * plan.scale).astype(q_BLGRK.dtype), dk[:, :k_BSGK.shape[1]], dv[:, :k_BSGK.shape[1]]


def _run(plan, tile, q_BLHK, k_BSGK, v_BSGK, ranges_B2L, notes_BH2L, g_BLHK, bounds_BM4, turns_BN4):
  (batch, _, groups, size), dtype = k_BSGK.shape, k_BSGK.dtype
  beside = [jax.ShapeDtypeStruct((2, tile.c), x.dtype) for x in (notes_BH2L, ranges_B2L)]
  scratch = [*[parts.shared((tile.span, size), dtype)] * 2, parts.shared((TWICE, tile.span, tile.c), dtype),
             parts.shared((tile.c, size), jnp.float32), plg.Barrier(num_arrivals=2),
             *[plg.Barrier(num_arrivals=tile.groups)] * 3, plg.Barrier(), parts.Ring.of(tile, size, dtype, *beside)]
  near = next(n for n in range(BESIDE, 0, -1) if groups % n == 0)
  results = [jax.ShapeDtypeStruct(q_BLHK.shape, jnp.float32), *[jax.ShapeDtypeStruct(k_BSGK.shape, dtype)] * 2]
  run = parts.launch(partial(_backward, plan, tile, near), tile,
                     dict(rows=batch, heads=groups // near, blocks=bounds_BM4.shape[1], near=near), results, scratch,
                     'hopper_backward', copies=2)
  return run(q_BLHK, k_BSGK, v_BSGK, ranges_B2L, notes_BH2L, g_BLHK, bounds_BM4, turns_BN4)


def _backward(plan, tile, near, q_ref, k_ref, v_ref, ranges_ref, notes_ref, g_ref, bounds_ref, turns_ref, dq_ref, dk_ref,
              dv_ref, k_tile, v_tile, slopes, dq_tile, here, done, met, full, free, ring):
  b, i, g = lax.axis_index('rows'), lax.axis_index('blocks'), lax.axis_index('heads') * near + lax.axis_index('near')
  walk, (t, c, *_), (span, size) = parts.Walk.of(bounds_ref.at[b, i]), tile, k_tile.shape
  shares, down = q_ref.shape[2] // k_ref.shape[2], walk.down()

  def compute(group):
    own, base, width = pl.ds(group * t, t), i * span + group * t, size // tile.groups
    rows, columns = (own, pl.ds(0, size)) if c == span else (pl.ds(0, c), pl.ds(group * width, width))   # its part of dq

    def steps(dk_sum, dv_sum):
      def step(masked, m, _):
        n, slopes_PC = 2 * m, slopes.at[lax.rem(m, TWICE)]
        q_CK = ring.take(n)

        def note(which, row):
          return parts.down(parts.read(ring.stages[which].at[ring.slot(n + which - 1), row], parts.COLUMN), (t, c))

        def weigh(x_sum, dp_sum):
          dp_sum[...] = -note(1, 1)    # before any WGMMA is in flight, which this would wait for
          plg.wgmma(x_sum, k_tile.at[own], q_CK.T)
          g_CK = ring.take(n + 1)
          plg.wgmma(dp_sum, v_tile.at[own], g_CK.T)
          x_TC, scale = parts.logits(plan, plg.wgmma_accumulator_load(x_sum, wait_n=1))
          p_TC = jnp.exp2(x_TC * scale - note(1, 0))
          if masked:                   # one bound after the other: both at once need too many registers
            key_TC = parts.count((t, c), 0) + base
            p_TC = jnp.where(key_TC >= note(2, 0), p_TC, 0.0)
            p_TC = jnp.where(key_TC < note(2, 1), p_TC, 0.0)
          plg.wgmma(dv_sum, p_TC.astype(k_tile.dtype), g_CK)
          p_TC = plan.uncapped(x_TC, p_TC)         # before dp is read, so that the scores' registers are free sooner
          return (p_TC * plg.wgmma_accumulator_load(dp_sum, wait_n=1)).astype(k_tile.dtype)

        def turn(dq_sum):
          plg.wgmma(dq_sum, slopes_PC.at[:, rows].T, k_tile.at[:, columns])
          plg.wgmma(dk_sum, slopes_TC, q_CK)
          return plg.wgmma_accumulator_load(dq_sum, wait_n=1)

        slopes_TC = pl.run_scoped(weigh, *[plg.ACC((t, c), jnp.float32)] * 2)
        slopes_PC[own, :] = slopes_TC
        plg.commit_smem()
        plg.barrier_arrive(met)
        plg.barrier_wait(met)
        dq = pl.run_scoped(turn, plg.ACC((rows.size, columns.size), jnp.float32))
        ring.give(n + 1)
        pl.when(m > 0)(lambda: plg.barrier_wait(free))
        dq_tile[rows, columns] = dq
        plg.commit_smem()
        plg.barrier_arrive(full)
        plg.wgmma_wait(0)
        ring.give(n)

      Walk(*(u * shares for u in down))(step, None)
      return dk_sum[...], dv_sum[...]

    plg.barrier_wait(here)
    dk_TK, dv_TK = pl.run_scoped(steps, *[plg.ACC((t, size), jnp.float32)] * 2)
    plg.barrier_arrive(done)
    plg.barrier_wait(done)               # the other warpgroup may still read all keys
    parts.write(dk_TK * plan.scale, k_tile.at[own], dk_ref.at[b, pl.ds(base, t), g])
    parts.write(dv_TK, v_tile.at[own], dv_ref.at[b, pl.ds(base, t), g])
    plg.wait_smem_to_gmem(0, wait_read_only=True)

  def each(act):
    """`act(m, j, h)` for each step m of the loop: block j of queries of head h, the last block first."""
    @pl.loop(0, down.stop)
    def _(u):
      @pl.loop(0, shares)
      def _(r):
        act(u * shares + r, walk.stop - 1 - u, g * shares + r)

  def copy():
    for ref, own in (k_ref, k_tile), (v_ref, v_tile):
      plg.copy_gmem_to_smem(ref.at[b, pl.ds(i * span, span), g], own, here)

    @each
    def _(m, j, h):
      rows = pl.ds(j * c, c)
      ring.put(2 * m, q_ref.at[b, rows, h], notes_ref.at[b, h, :, rows], 1)
      ring.put(2 * m + 1, g_ref.at[b, rows, h], ranges_ref.at[b, :, rows], 2)

  def add():
    counts = pl.get_global(plg.SemaphoreType.REGULAR((*q_ref.shape[::2], turns_ref.shape[1])))

    @each
    def _(m, j, h):
      count, first, last = counts.at[b, h, j], turns_ref[b, j, 0], turns_ref[b, j, 3]
      some, target = (i >= first) & (i < last), dq_ref.at[b, pl.ds(j * c, c), h]
      plg.barrier_wait(full)

      @pl.when(some)
      def _():
        plg.semaphore_wait(count, i - first, decrement=False, memory_scope='gpu')
        pl.when(i == first)(lambda: plg.copy_smem_to_gmem(dq_tile, target))
        pl.when(i > first)(lambda: plg.copy_smem_to_gmem(dq_tile, target, reduction_op='add'))
        plg.wait_smem_to_gmem(0, wait_read_only=True)

      plg.barrier_arrive(free)

      @pl.when(some)
      def _():
        plg.wait_smem_to_gmem(0)       # the whole part is in memory before the next program may add
        plg.semaphore_signal(count, memory_scope='gpu')

  parts.roles(tile, compute, copy, add)
