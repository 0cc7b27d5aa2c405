"""Attention in one pass over the keys for TPUs, in Pallas (Mosaic): the algebra of kernels.attention_triton on another grid.

The grids are (B, H, blocks of queries, blocks of keys) for the forward pass and dq, and (B, G, blocks of keys, R, blocks of
queries) for dk and dv; the last axis loops over the blocks that the other side attends to. Bounds are prefetched scalars: once
a loop is over, the index map repeats its last block, so blocks out of range are neither copied nor multiplied. Scores are
[keys, queries], so that per-query numbers (maxima, sums) lie along lanes at any head size; the transposes that this needs are
done once, in XLA, before and after the kernels.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size, T
queries of a block, C keys of a block.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as plt

from kernels.attention_bounds import key_bounds, query_bounds
from kernels.attention_call import Call
from kernels.attention_fused import LOWEST, Kernels, Plan, fused
from kernels.attention_tpu_blocks import Grid, Tile
from kernels.ranges import Ranges

LANES = 128
LARGEST = 256                         # head size
WIDE, DEEP = Tile(512, 512), Tile(256, 256)     # for head sizes up to 128, and beyond; not measured yet


def tpu_refusal(call: Call) -> str | None:
  """Why `tpu` cannot do the call, or None: a function of the call alone, so that it can be tested without a TPU."""
  facts = {
    f'it runs on TPUs, not on {call.platform}': call.platform != 'tpu',
    f'it takes float32 and bfloat16, not {call.dtype}': call.dtype not in ('float32', 'bfloat16'),
    f'head size {call.head_size} is no multiple of 8 from 32 to {LARGEST}':
      call.head_size % 8 or not 32 <= call.head_size <= LARGEST,
    f'libtpu asks nobody how to cut it over {call.devices} devices': call.devices > 1,
  }
  return next((why for why, holds in facts.items() if holds), None)


def tpu(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, ranges: Ranges, *, scale: float, softcap: float | None,
        tile: Tile | None = None, interpret: bool = False) -> jax.Array:
  """softmax(q k) v over each row's range: [B, L, H, K] in q's dtype, accumulated in float32, with memory linear in L.

  `tile` and `interpret` are for tests, which run small blocks without a TPU.
  """
  tile = tile or tile_for(q_BLHK, k_BSGK)
  return fused(KERNELS, Plan(ranges.kind, scale, softcap, tile, interpret), q_BLHK, k_BSGK, v_BSGK, ranges)


def tile_for(q_BLHK: jax.Array, k_BSGK: jax.Array) -> Tile:
  """The tile for a head size, no larger than the operands."""
  most = WIDE if q_BLHK.shape[3] <= LANES else DEEP
  return Tile(*(min(each, -(-x.shape[1] // LANES) * LANES) for each, x in zip(most, (q_BLHK, k_BSGK))))


def forward(plan: Plan, q_BLGRK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, first_BL: jax.Array,
            last_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
  """out_BLGRK in q's dtype, and the log-sum-exps lse_BGRL, f32, base 2."""
  grid = Grid.of(plan, q_BLGRK, k_BSGK)
  at = grid.by_queries()
  (batch, length, groups, shared, size), (t, c) = q_BLGRK.shape, plan.tiles
  bounds = key_bounds(first_BL, last_BL, t, c).reshape(-1)
  out = jax.ShapeDtypeStruct((batch, groups, shared, size, grid.blocks * t), q_BLGRK.dtype)
  lse = jax.ShapeDtypeStruct((batch, groups, shared, 1, grid.blocks * t), jnp.float32)
  scratch = [plt.VMEM((size, t), jnp.float32), plt.VMEM((1, t), jnp.float32), plt.VMEM((1, t), jnp.float32)]
  operands = grid.queries(q_BLGRK), grid.keys(k_BSGK), grid.keys(v_BSGK), grid.rows(first_BL), grid.rows(last_BL)
  out, lse = _call(_forward, plan, at, (batch, groups * shared, grid.blocks, grid.walked), 1,
                   [at.query, at.key, at.key, at.row, at.row], [at.column, at.note], [out, lse], scratch)(bounds, *operands)
  return out[..., :length].transpose(0, 4, 1, 2, 3), lse[..., 0, :length]


def backward(plan: Plan, q_BLGRK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, first_BL: jax.Array, last_BL: jax.Array,
             lse_BGRL: jax.Array, delta_BGRL: jax.Array,
             g_BLGRK: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """dq, dk and dv."""
  grid = Grid.of(plan, q_BLGRK, k_BSGK)
  (batch, length, groups, shared, size), (t, c) = q_BLGRK.shape, plan.tiles
  operands = (grid.queries(q_BLGRK), grid.keys(k_BSGK), grid.keys(v_BSGK), grid.rows(first_BL), grid.rows(last_BL),
              grid.notes(lse_BGRL), grid.notes(delta_BGRL), grid.queries(g_BLGRK))
  at, bounds = grid.by_queries(), key_bounds(first_BL, last_BL, t, c).reshape(-1)
  shape = jax.ShapeDtypeStruct((batch, groups, shared, size, grid.blocks * t), q_BLGRK.dtype)
  [dq] = _call(_backward_queries, plan, at, (batch, groups * shared, grid.blocks, grid.walked), 1, at.all, [at.column],
               [shape], [plt.VMEM((size, t), jnp.float32)])(bounds, *operands)
  at, bounds = grid.by_keys(), query_bounds(first_BL, last_BL, k_BSGK.shape[1], t, c).reshape(-1)
  shape = jax.ShapeDtypeStruct(operands[1].shape, k_BSGK.dtype)
  dk, dv = _call(_backward_keys, plan, at, (batch, groups, grid.slots, shared, grid.met), 2, at.all, [at.key, at.key],
                 [shape] * 2, [plt.VMEM((c, size), jnp.float32)] * 2)(bounds, *operands)
  dk, dv = (x[:, :, :k_BSGK.shape[1]].transpose(0, 2, 1, 3) for x in (dk, dv))
  return dq[..., :length].transpose(0, 4, 1, 2, 3), dk, dv


KERNELS = Kernels(forward, backward)


def _call(kernel, plan, at, grid, walks, inputs, outputs, shapes, scratch):
  spec = plt.PrefetchScalarGridSpec(num_scalar_prefetch=1, grid=grid, in_specs=inputs, out_specs=outputs,
                                    scratch_shapes=scratch)
  order = ('parallel',) * (len(grid) - walks) + ('arbitrary',) * walks
  return pl.pallas_call(partial(kernel, plan), grid_spec=spec, out_shape=shapes, interpret=plan.interpret,
                        name=kernel.__name__.strip('_'), compiler_params=plt.CompilerParams(dimension_semantics=order))


def _dot(a, b, i, j):
  """a times b, contracting dimension i of a and j of b: f32."""
  precision = jax.lax.Precision.DEFAULT if a.dtype == jnp.bfloat16 else None      # the only one that Mosaic has for bfloat16
  return jax.lax.dot_general(a, b, (((i,), (j,)), ((), ())), precision, preferred_element_type=jnp.float32)


def _walk(bounds_ref, row, step, visit):
  """Runs `visit(whole, block)` if this step of the loop has a block left; `whole`: it needs no mask."""
  start, whole, past, stop = (bounds_ref[4 * row + n] for n in range(4))
  block = start + step
  full = (block >= whole) & (block < past)
  pl.when((block < stop) & full)(lambda: visit(True, block))
  pl.when((block < stop) & ~full)(lambda: visit(False, block))


def _seen(shape, begin, first_ref, last_ref):
  keys = begin + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
  return (keys >= first_ref[...]) & (keys < last_ref[...])


def _row():
  """The index into the bounds of this program's loop."""
  return pl.program_id(0) * pl.num_programs(2) + pl.program_id(2)


def _forward(plan, bounds_ref, q_ref, k_ref, v_ref, first_ref, last_ref, out_ref, lse_ref, acc_ref, top_ref, total_ref):
  step = pl.program_id(3)

  @pl.when(step == 0)
  def begin():
    acc_ref[...] = jnp.zeros_like(acc_ref)
    top_ref[...] = jnp.full_like(top_ref, LOWEST)
    total_ref[...] = jnp.zeros_like(total_ref)

  def visit(whole, block):
    v_CK = v_ref[...]
    x_CT, scale = plan.logits(_dot(k_ref[...], q_ref[...], 1, 1))
    if not whole:
      x_CT = jnp.where(_seen(x_CT.shape, block * plan.tiles.c, first_ref, last_ref), x_CT, -jnp.inf)
    top_1T = top_ref[...]
    new_1T = jnp.maximum(top_1T, jnp.max(x_CT, 0, keepdims=True) * scale)
    p_CT, keep_1T = jnp.exp2(x_CT * scale - new_1T), jnp.exp2(top_1T - new_1T)
    acc_ref[...] = acc_ref[...] * keep_1T + _dot(v_CK, p_CT.astype(v_CK.dtype), 0, 0)
    total_ref[...] = total_ref[...] * keep_1T + jnp.sum(p_CT, 0, keepdims=True)
    top_ref[...] = new_1T

  _walk(bounds_ref, _row(), step, visit)

  @pl.when(step == pl.num_programs(3) - 1)
  def end():
    some = total_ref[...] > 0
    total_1T = jnp.where(some, total_ref[...], 1.0)
    out_ref[...] = (acc_ref[...] / total_1T).astype(out_ref.dtype)
    lse_ref[...] = jnp.where(some, top_ref[...] + jnp.log2(total_1T), -jnp.inf)


def _slopes(plan, whole, block, k_ref, v_ref, q_ref, g_ref, first_ref, last_ref, lse_ref, delta_ref):
  """The probabilities of a block, and the gradients by scale * q k: [C, T] each."""
  x_CT, scale = plan.logits(_dot(k_ref[...], q_ref[...], 1, 1))
  p_CT = jnp.exp2(x_CT * scale - lse_ref[...])
  if not whole:
    p_CT = jnp.where(_seen(x_CT.shape, block * plan.tiles.c, first_ref, last_ref), p_CT, 0.0)
  return p_CT, plan.uncapped(x_CT, p_CT * (_dot(v_ref[...], g_ref[...], 1, 1) - delta_ref[...]))


def _backward_queries(plan, bounds_ref, q_ref, k_ref, v_ref, first_ref, last_ref, lse_ref, delta_ref, g_ref, dq_ref, acc_ref):
  step = pl.program_id(3)

  @pl.when(step == 0)
  def begin():
    acc_ref[...] = jnp.zeros_like(acc_ref)

  def visit(whole, block):
    _, slopes_CT = _slopes(plan, whole, block, k_ref, v_ref, q_ref, g_ref, first_ref, last_ref, lse_ref, delta_ref)
    acc_ref[...] += _dot(k_ref[...], slopes_CT.astype(k_ref.dtype), 0, 0)

  _walk(bounds_ref, _row(), step, visit)

  @pl.when(step == pl.num_programs(3) - 1)
  def end():
    dq_ref[...] = (acc_ref[...] * plan.scale).astype(dq_ref.dtype)


def _backward_keys(plan, bounds_ref, q_ref, k_ref, v_ref, first_ref, last_ref, lse_ref, delta_ref, g_ref, dk_ref, dv_ref,
                   dk_acc_ref, dv_acc_ref):
  block, shared, step = pl.program_id(2), pl.program_id(3), pl.program_id(4)

  @pl.when((shared == 0) & (step == 0))
  def begin():
    dk_acc_ref[...] = jnp.zeros_like(dk_acc_ref)
    dv_acc_ref[...] = jnp.zeros_like(dv_acc_ref)

  def visit(whole, _):
    p_CT, slopes_CT = _slopes(plan, whole, block, k_ref, v_ref, q_ref, g_ref, first_ref, last_ref, lse_ref, delta_ref)
    dk_acc_ref[...] += _dot(slopes_CT.astype(q_ref.dtype), q_ref[...], 1, 0)
    dv_acc_ref[...] += _dot(p_CT.astype(g_ref.dtype), g_ref[...], 1, 0)

  _walk(bounds_ref, _row(), step, visit)

  @pl.when((shared == pl.num_programs(3) - 1) & (step == pl.num_programs(4) - 1))
  def end():
    dk_ref[...] = (dk_acc_ref[...] * plan.scale).astype(dk_ref.dtype)
    dv_ref[...] = dv_acc_ref[...].astype(dv_ref.dtype)
