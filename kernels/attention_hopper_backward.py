"""The backward pass of kernels.attention_hopper in two kernels: dq, in a loop over keys; dk and dv, in a loop over queries.

The grid of the first is (H, blocks of queries, B), of the second (G, blocks of keys, B). No atomics: equal inputs give equal
bits. The price is that both recompute the scores, which makes seven matmuls instead of five.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size, T resident
rows of a warpgroup (queries for dq, keys for dk and dv), C rows of a streamed block, N blocks of resident rows.
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
from kernels.attention_hopper_blocks import Tile

WIDE = 128                             # for larger heads a warpgroup has registers for dk or dv, not for both


def backward(plan: Plan, *operands: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """dq, dk and dv; of q, k, v, first, last, lse, delta, g."""
  q_BLGRK, k_BSGK, v_BSGK, first_BL, last_BL, lse_BGRL, delta_BGRL, g_BLGRK = operands
  q_BLHK, g_BLHK = parts.by_heads(q_BLGRK), parts.by_heads(g_BLGRK)
  lse_BHL, delta_BHL = (x.reshape(x.shape[0], -1, x.shape[-1]) for x in (lse_BGRL, delta_BGRL))
  k, v = (parts.padded(x, 1, parts.EIGHT) for x in (k_BSGK, v_BSGK))
  dq = _dq(plan, q_BLHK, k, v, first_BL, last_BL, lse_BHL, delta_BHL, g_BLHK)
  dk, dv = _dk_dv(plan, q_BLHK, k, v, first_BL, last_BL, lse_BHL, delta_BHL, g_BLHK)
  return dq[:, :q_BLGRK.shape[1]].reshape(q_BLGRK.shape), dk[:, :k_BSGK.shape[1]], dv[:, :k_BSGK.shape[1]]


def _dq(plan, q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, lse_BHL, delta_BHL, g_BLHK):
  tile: Tile = plan.tiles.backward.queries
  batch, _, heads, size = q_BLHK.shape
  first_BL, last_BL = (parts.padded(x, 1, tile.span) for x in (first_BL, last_BL))
  lse_BHL, delta_BHL = (parts.padded(x, 2, tile.span) for x in (lse_BHL, delta_BHL))
  bounds_BN4 = key_bounds(first_BL, last_BL, tile.span, tile.c)
  scratch = [*[parts.shared((tile.span, size), q_BLHK.dtype)] * 2, plg.Barrier(num_arrivals=2),
             parts.Ring.of(tile, size, q_BLHK.dtype)]
  body = partial(_backward_queries, plan, tile, heads // k_BSGK.shape[2])
  grid = dict(heads=heads, blocks=bounds_BN4.shape[1], rows=batch)
  run = parts.launch(body, tile, grid, [jax.ShapeDtypeStruct(q_BLHK.shape, q_BLHK.dtype)], scratch, 'hopper_backward_queries')
  return run(q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, lse_BHL, delta_BHL, g_BLHK, bounds_BN4)[0]


def _dk_dv(plan, q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, lse_BHL, delta_BHL, g_BLHK):
  tile: Tile = plan.tiles.backward.keys
  batch, keys, groups, size = k_BSGK.shape
  span = tile.t if size > WIDE else tile.span
  ranges_B2L = jnp.stack([parts.padded(x, 1, tile.c) for x in (first_BL, last_BL)], 1)
  notes_BH2L = jnp.stack([parts.padded(x, 2, tile.c) for x in (lse_BHL, delta_BHL)], 2)
  bounds_BN4 = query_bounds(first_BL, last_BL, keys, tile.c, span)
  beside = [jax.ShapeDtypeStruct((2, tile.c), x.dtype) for x in (notes_BH2L, ranges_B2L)]
  scratch = [*[parts.shared((span, size), k_BSGK.dtype)] * 2, plg.Barrier(num_arrivals=2),
             plg.Barrier(num_arrivals=tile.groups), parts.Ring.of(tile, size, k_BSGK.dtype, *beside)]
  body = partial(_backward_keys, plan, tile, q_BLHK.shape[2] // groups)
  grid = dict(heads=groups, blocks=bounds_BN4.shape[1], rows=batch)
  run = parts.launch(body, tile, grid, [jax.ShapeDtypeStruct(k_BSGK.shape, k_BSGK.dtype)] * 2, scratch, 'hopper_backward_keys')
  return run(q_BLHK, k_BSGK, v_BSGK, ranges_B2L, notes_BH2L, g_BLHK, bounds_BN4)


def _backward_queries(plan, tile, shares, q_ref, k_ref, v_ref, first_ref, last_ref, lse_ref, delta_ref, g_ref, bounds_ref,
                      dq_ref, q_tile, g_tile, here, ring):
  b, h = lax.axis_index('rows'), lax.axis_index('heads')
  i = bounds_ref.shape[1] - 1 - lax.axis_index('blocks')     # the last blocks first: under a causal mask they take longest
  walk, (t, c, *_), size = parts.Walk.of(bounds_ref.at[b, i]), tile, q_ref.shape[-1]
  late = tile.stages > 3               # release keys a block late, so that matmuls overlap: needs one more stage

  def compute(group):
    rows, part = pl.ds(i * tile.span + group * t, t), pl.ds(group * t, t)
    first_T, last_T = (parts.read(ref.at[b, rows], parts.ROW) for ref in (first_ref, last_ref))
    lse_T, delta_T = (parts.read(ref.at[b, h, rows], parts.ROW) for ref in (lse_ref, delta_ref))

    def steps(sum_ref):
      def step(masked, j, _):
        n = 2 * (j - walk.start)
        k_CK = ring.take(n)

        def slopes(x_ref, dp_ref):
          plg.wgmma(x_ref, q_tile.at[part], k_CK.T)
          plg.wgmma(dp_ref, g_tile.at[part], ring.take(n + 1).T)
          x_TC, scale = parts.logits(plan, plg.wgmma_accumulator_load(x_ref, wait_n=1))
          if late:
            pl.when(j > walk.start)(lambda: ring.give(n - 2))
          p_TC = jnp.exp2(x_TC * scale - parts.across(lse_T, (t, c)))
          if masked:
            key_TC = parts.count((t, c), 1)
            seen_TC = (key_TC >= parts.across(first_T - j * c, (t, c))) & (key_TC < parts.across(last_T - j * c, (t, c)))
            p_TC = jnp.where(seen_TC, p_TC, 0.0)
          dp_TC = plg.wgmma_accumulator_load(dp_ref, wait_n=0)
          ring.give(n + 1)
          return plan.uncapped(x_TC, p_TC * (dp_TC - parts.across(delta_T, (t, c))))

        slopes_TC = pl.run_scoped(slopes, *[plg.ACC((t, c), jnp.float32)] * 2)
        plg.wgmma(sum_ref, slopes_TC.astype(q_tile.dtype), k_CK)
        if not late:
          plg.wgmma_wait(0)
          ring.give(n)

      walk(step, None)
      return sum_ref[...]

    plg.barrier_wait(here)
    dq_TK = pl.run_scoped(steps, plg.ACC((t, size), jnp.float32))
    parts.write(dq_TK * plan.scale, q_tile.at[part], dq_ref.at[b, rows, h])
    plg.wait_smem_to_gmem(0, wait_read_only=True)

  def copy():
    g = lax.div(h, shares)
    for ref, own in (q_ref, q_tile), (g_ref, g_tile):
      plg.copy_gmem_to_smem(ref.at[b, pl.ds(i * tile.span, tile.span), h], own, here)
    ring.fill(walk, lambda j: (b, pl.ds(j * c, c), g), k_ref, v_ref)

  parts.roles(tile, compute, copy)


def _backward_keys(plan, tile, shares, q_ref, k_ref, v_ref, ranges_ref, notes_ref, g_ref, bounds_ref, dk_ref, dv_ref, k_tile,
                   v_tile, here, done, ring):
  b, g, i = (lax.axis_index(name) for name in ('rows', 'heads', 'blocks'))
  walk, (t, c, *_), (span, size) = parts.Walk.of(bounds_ref.at[b, i]), tile, k_tile.shape
  blocks = walk.stop - walk.start

  def compute(offset, keys, values):
    """dk (if `keys`), dv (if `values`) or both, of the program's T keys from `offset` on."""
    part, base = pl.ds(offset, t), i * span + offset

    def steps(*sums):
      def step(r, masked, j, _):
        n = 2 * (r * blocks + j - walk.start)
        q_CK = ring.take(n)

        def note(which, row):
          return parts.down(parts.read(ring.stages[which].at[ring.slot(n + which - 1), row], parts.COLUMN), (t, c))

        def products(x_ref, dp_ref=None):
          plg.wgmma(x_ref, k_tile.at[part], q_CK.T)
          g_CK = ring.take(n + 1)
          if keys:
            plg.wgmma(dp_ref, v_tile.at[part], g_CK.T)
          x_TC, scale = parts.logits(plan, plg.wgmma_accumulator_load(x_ref, wait_n=int(keys)))
          p_TC = jnp.exp2(x_TC * scale - note(1, 0))
          if masked:                   # one bound after the other: both at once need too many registers
            key_TC = parts.count((t, c), 0) + base
            p_TC = jnp.where(key_TC >= note(2, 0), p_TC, 0.0)
            p_TC = jnp.where(key_TC < note(2, 1), p_TC, 0.0)
          if values:
            plg.wgmma(sums[-1], p_TC.astype(k_tile.dtype), g_CK)
          if keys:
            dp_TC = plg.wgmma_accumulator_load(dp_ref, wait_n=int(values))
            slopes_TC = plan.uncapped(x_TC, p_TC * (dp_TC - note(1, 1)))
            plg.wgmma(sums[0], slopes_TC.astype(k_tile.dtype), q_CK)
          plg.commit_smem()            # the reads of lse, delta and ranges come before the next copy into their stage
          plg.wgmma_wait(int(keys))
          ring.give(n + 1)
          plg.wgmma_wait(0)
          ring.give(n)

        pl.run_scoped(products, *[plg.ACC((t, c), jnp.float32)] * (1 + keys))

      lax.fori_loop(0, shares, lambda r, _: walk(partial(step, r), None), None)
      return tuple(ref[...] for ref in sums)

    plg.barrier_wait(here)
    found = pl.run_scoped(steps, *[plg.ACC((t, size), jnp.float32)] * (keys + values))
    plg.barrier_arrive(done)
    plg.barrier_wait(done)               # the other warpgroup may still read the same keys and values
    if keys:
      parts.write(found[0] * plan.scale, k_tile.at[part], dk_ref.at[b, pl.ds(base, t), g])
    if values:
      parts.write(found[-1], v_tile.at[part], dv_ref.at[b, pl.ds(base, t), g])
    plg.wait_smem_to_gmem(0, wait_read_only=True)

  def share(group):
    if size <= WIDE:
      compute(group * t, keys=True, values=True)
      return
    pl.when(group == 0)(partial(compute, 0, keys=True, values=False))
    pl.when(group == 1)(partial(compute, 0, keys=False, values=True))

  def copy():
    for ref, own in (k_ref, k_tile), (v_ref, v_tile):
      plg.copy_gmem_to_smem(ref.at[b, pl.ds(i * span, span), g], own, here)

    @pl.loop(0, shares)
    def _(r):
      @pl.loop(walk.start, walk.stop)
      def _(j):
        n, h, rows = 2 * (r * blocks + j - walk.start), g * shares + r, pl.ds(j * c, c)
        ring.put(n, q_ref.at[b, rows, h], notes_ref.at[b, h, :, rows], 1)
        ring.put(n + 1, g_ref.at[b, rows, h], ranges_ref.at[b, :, rows], 2)

  parts.roles(tile, share, copy)
