"""Attention in one pass over the keys for NVIDIA's Hopper (H100, H200), in Pallas with the Mosaic GPU backend.

Forward pass after FlashAttention-3 (Shah et al. 2024), on a grid of (H, N, B): a program takes a block of query rows of a head
and loops over the blocks of keys that they attend to. Two consumer warpgroups hold 64 query rows each and alternate, so that
one computes its softmax while the other uses the tensor cores; a producer warpgroup loads blocks of keys and values ahead of
them. Blocks of keys that all rows attend to in full take no mask. Backward pass: kernels.attention_hopper_backward (two
kernels) or kernels.attention_hopper_one (one).

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size, T rows of
a warpgroup, C keys of a block, N blocks of the query rows of a program.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plg

from kernels import attention_hopper_backward, attention_hopper_one
from kernels import attention_hopper_blocks as parts
from kernels.attention_bounds import key_bounds
from kernels.attention_call import Call
from kernels.attention_fused import LOWEST, Kernels, Plan, fused
from kernels.attention_hopper_blocks import Pair, Tile, Tiles
from kernels.ranges import Ranges

# By the largest head size. Taken from tokamax's tuning of such kernels (the cache that it ships for the H100); others were not
# measured yet. With attention_hopper_one.TILES[64] in place of a Pair, one kernel does the backward pass.
TILES: dict[int, Tiles] = {
  64: Tiles(Tile(64, 128, 6), Pair(Tile(64, 128, 6), Tile(64, 128, 4))),
  128: Tiles(Tile(64, 128, 5), Pair(Tile(64, 64, 6), Tile(64, 64, 8))),
  256: Tiles(Tile(64, 64, 4), Pair(Tile(64, 64, 3), Tile(64, 64, 4))),
}
LEAST, LARGEST = 64, 256              # head sizes; others between them are padded to the next in the table


def hopper_refusal(call: Call) -> str | None:
  """Why `hopper` cannot do the call, or None."""
  facts = {
    f'it runs on NVIDIA GPUs, not on {call.platform}': call.platform != 'gpu',
    f'it needs compute capability 9.0 (H100, H200), not {call.capability}': call.capability != 9,
    f'it takes float16 and bfloat16, not {call.dtype}': call.dtype not in ('float16', 'bfloat16'),
    f'head size {call.head_size} is not {LEAST} to {LARGEST}': not LEAST <= call.head_size <= LARGEST,
    f'it needs jax 0.11, not {jax.__version__}': jax.__version_info__ < (0, 11),
  }
  return next((why for why, holds in facts.items() if holds), None)


def hopper(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, ranges: Ranges, *, scale: float, softcap: float | None,
           tiles: Tiles | None = None) -> jax.Array:
  """softmax(q k) v over each row's range: [B, L, H, K] in q's dtype, accumulated in float32, with memory linear in L.

  `tiles` is for tuning.
  """
  size = q_BLHK.shape[3]
  plan = Plan(ranges.kind, scale, softcap, tiles or tiles_for(size), False)
  width = next(width for width in TILES if size <= width)
  q, k, v = (parts.padded(x, 3, width) for x in (q_BLHK, k_BSGK, v_BSGK))
  return fused(KERNELS, plan, q, k, v, ranges)[..., :size]


def tiles_for(size: int) -> Tiles:
  """The tiles for a head size."""
  return next(tiles for width, tiles in TILES.items() if size <= width)


def forward(plan: Plan, q_BLGRK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, first_BL: jax.Array,
            last_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
  """out_BLGRK in q's dtype, and the log-sum-exps lse_BGRL, f32, base 2."""
  tile: Tile = plan.tiles.forward
  (batch, length, groups, shares, size), dtype = q_BLGRK.shape, q_BLGRK.dtype
  q_BLHK = parts.by_heads(q_BLGRK)
  k_BSGK, v_BSGK = (parts.padded(x, 1, parts.EIGHT) for x in (k_BSGK, v_BSGK))
  first_BL, last_BL = (parts.padded(x, 1, tile.span) for x in (first_BL, last_BL))
  bounds_BN4 = key_bounds(first_BL, last_BL, tile.span, tile.c)
  lse = jax.ShapeDtypeStruct((batch, groups * shares, first_BL.shape[1]), jnp.float32)
  scratch = [parts.shared((tile.span, size), dtype), plg.Barrier(), parts.Ring.of(tile, size, dtype),
             plg.Barrier(num_barriers=tile.groups)]
  grid = dict(heads=groups * shares, blocks=bounds_BN4.shape[1], rows=batch)
  run = parts.launch(partial(_forward, plan, tile, shares), tile, grid, [jax.ShapeDtypeStruct(q_BLHK.shape, dtype), lse],
                     scratch, 'hopper_forward')
  out_BLHK, lse_BHL = run(q_BLHK, k_BSGK, v_BSGK, first_BL, last_BL, bounds_BN4)
  return out_BLHK[:, :length].reshape(q_BLGRK.shape), lse_BHL[..., :length].reshape(batch, groups, shares, length)


def backward(plan: Plan, *operands: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """dq, dk and dv, by two kernels where `plan.tiles.backward` is a Pair, else by one."""
  kernels = attention_hopper_backward if isinstance(plan.tiles.backward, Pair) else attention_hopper_one
  return kernels.backward(plan, *operands)


KERNELS = Kernels(forward, backward)


def _forward(plan, tile, shares, q_ref, k_ref, v_ref, first_ref, last_ref, bounds_ref, out_ref, lse_ref, q_tile, q_here, ring,
             turn):
  b, h = lax.axis_index('rows'), lax.axis_index('heads')
  i = bounds_ref.shape[1] - 1 - lax.axis_index('blocks')     # the last blocks first: under a causal mask they take longest
  walk, (t, c, *_), size = parts.Walk.of(bounds_ref.at[b, i]), tile, q_ref.shape[-1]

  def compute(group):
    rows, mine = pl.ds(i * tile.span + group * t, t), q_tile.at[pl.ds(group * t, t)]
    first_T, last_T = (parts.read(ref.at[b, rows], parts.ROW) for ref in (first_ref, last_ref))
    after = lax.rem(group + 1, tile.groups)

    def step(masked, j, carry):
      acc_TK, top_T, total_T = carry
      n = 2 * (j - walk.start)

      def scores(ref):
        plg.wgmma(ref, mine, ring.block(n).T)
        plg.barrier_arrive(turn.at[after])                   # the other warpgroup may use the tensor cores
        return ref[...]

      x_TC, scale = parts.logits(plan, pl.run_scoped(scores, plg.ACC((t, c), jnp.float32)))
      ring.give(n)
      if masked:
        key_TC = parts.count((t, c), 1)
        seen_TC = (key_TC >= parts.across(first_T - j * c, (t, c))) & (key_TC < parts.across(last_T - j * c, (t, c)))
        x_TC = jnp.where(seen_TC, x_TC, -jnp.inf)
      new_T = jnp.maximum(top_T, x_TC.max(1) * scale)
      p_TC, keep_T = jnp.exp2(x_TC * scale - parts.across(new_T, (t, c))), jnp.exp2(top_T - new_T)
      acc_TK, total_T = acc_TK * parts.across(keep_T, acc_TK.shape), total_T * keep_T + p_TC.sum(1)
      acc_TK, p_TC, total_T, new_T = lax.optimization_barrier((acc_TK, p_TC.astype(mine.dtype), total_T, new_T))
      v_CK = ring.take(n + 1)
      plg.barrier_wait(turn.at[group])

      def add(ref):
        plg.wgmma(ref, p_TC, v_CK)
        pl.when(j + 1 < walk.stop)(lambda: ring.wait(n + 2))

      acc_TK = pl.run_state(add)(plg.ACC.init(acc_TK))
      ring.give(n + 1)
      return acc_TK, new_T, total_T

    zeros = plg.layout_cast(jnp.zeros((t, size), jnp.float32), parts.WGMMA)
    start = zeros, *(plg.layout_cast(jnp.full((t,), x, jnp.float32), parts.ROW) for x in (LOWEST, 0.0))
    plg.barrier_wait(q_here)
    pl.when(walk.start < walk.stop)(lambda: ring.wait(0))
    pl.when(group > 0)(lambda: plg.barrier_wait(turn.at[group]))
    acc_TK, top_T, total_T = walk(step, start)
    pl.when(group < tile.groups - 1)(lambda: plg.barrier_arrive(turn.at[after]))
    some_T = total_T > 0
    total_T = jnp.where(some_T, total_T, 1.0)
    lse_ref[b, h, rows] = jnp.where(some_T, top_T + jnp.log2(total_T), -jnp.inf)
    parts.write(acc_TK * parts.across(1 / total_T, (t, size)), mine, out_ref.at[b, rows, h])
    plg.wait_smem_to_gmem(0, wait_read_only=True)

  def copy():
    g = lax.div(h, shares)
    plg.copy_gmem_to_smem(q_ref.at[b, pl.ds(i * tile.span, tile.span), h], q_tile, q_here)
    ring.fill(walk, lambda j: (b, pl.ds(j * c, c), g), k_ref, v_ref)

  parts.roles(tile, compute, copy)
