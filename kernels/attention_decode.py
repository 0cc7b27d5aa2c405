"""Attention of few queries over a long cache for NVIDIA GPUs, in Pallas with the Triton backend.

Decoding is bound by memory bandwidth: every key is read once for little arithmetic, so all multiprocessors must read at once.
Split-K as in Flash-Decoding (Dao et al. 2023): the grid is (I parts of the keys, G N / T, B), a program takes T rows of queries
that share a key head and one part of the keys of that block's range, and XLA merges the partial softmaxes. Each row's own range
is split, so short rows keep as many programs busy as long ones, and keys outside of it are never read. int8 keys and values are
converted in registers; pages are found through the page table.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, K head size, N = L R rows of
a key head, T of them in a block, C keys of a block, I parts, P pages of Z positions.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from kernels import attention_triton
from kernels.attention_bounds import key_bounds, within
from kernels.attention_call import Call
from kernels.attention_decode_blocks import Sizes, Tile, block
from kernels.attention_fused import LOWEST, Kernels, Plan, fused, partitioned
from kernels.attention_held import Coded, Held, Paged
from kernels.ranges import Ranges

# By bytes of an element of q and the largest head size; not measured yet.
TILES = {(2, 64): Tile(128), (2, 128): Tile(64), (2, 256): Tile(32), (4, 64): Tile(64, 4, 2), (4, 128): Tile(32, 4, 2),
         (4, 256): Tile(16, 4, 2)}
MOST_QUERIES = 16


def decode_refusal(call: Call) -> str | None:
  """Why `decode` cannot do the call, or None: as for `triton`, and at most MOST_QUERIES queries."""
  if call.queries > MOST_QUERIES:
    return f'{call.queries} queries are more than {MOST_QUERIES}'
  return attention_triton.triton_refusal(call)


def decode(q_BLHK: jax.Array, k_BSGK: Held, v_BSGK: Held, ranges: Ranges, *, scale: float, softcap: float | None,
           tile: Tile | None = None, interpret: bool = False) -> jax.Array:
  """softmax(q k) v over each row's range: [B, L, H, K] in q's dtype, accumulated in float32.

  Keys and values that are arrays get gradients; int8 and paged ones do not. Keys are read as [B, G, S, K], pages as
  [P, G, Z, K]: stored so and passed with two dimensions swapped they are not copied. `tile` and `interpret` are for tests.

  Raises: ValueError for pages whose size is not a power of two from 16 on.
  """
  tile = tile or tile_for(q_BLHK.dtype, q_BLHK.shape[3])
  plan = Plan(ranges.kind, scale, softcap, tile, interpret)
  if isinstance(k_BSGK, jax.Array) and isinstance(v_BSGK, jax.Array):
    return fused(KERNELS, plan, q_BLHK, k_BSGK, v_BSGK, ranges)
  batch, length, _, size = q_BLHK.shape
  leaves, tree = jax.tree.flatten((k_BSGK, v_BSGK))
  first, last = within(ranges.first_BL, ranges.last_BL, k_BSGK.shape[1])
  q_BLGRK = q_BLHK.reshape(batch, length, k_BSGK.shape[2], -1, size)
  out_BLGRK, _ = _over_devices(plan, tree, (_letters(k_BSGK), _letters(v_BSGK)))(q_BLGRK, *leaves, first, last)
  return out_BLGRK.reshape(q_BLHK.shape)


def tile_for(dtype: jnp.dtype, size: int) -> Tile:
  """The tile for a dtype and head size."""
  return next(tile for (width, most), tile in TILES.items() if width == jnp.dtype(dtype).itemsize and size <= most)


def _letters(held):
  """The dimensions of its leaves, in their order, as a sharding rule of `partitioned` names them."""
  if isinstance(held, Paged):
    return f'{_letters(held.pages_PCGK)}, b n'.replace('b s', 'p s')
  return 'b s g k, b s g' if isinstance(held, Coded) else 'b s g k'


@lru_cache
def _over_devices(plan, tree, letters):
  """The kernel, partitioned over a mesh: each device runs it on its batch rows and key heads."""
  def run(q_BLGRK, *operands):
    *leaves, first_BL, last_BL = operands
    return forward(plan, q_BLGRK, *jax.tree.unflatten(tree, leaves), first_BL, last_BL)

  return partitioned(run, f'b l g r k, {letters[0]}, {letters[1]}, b l, b l -> b l g r k, b g r l')


def forward(plan: Plan, q_BLGRK: jax.Array, k_BSGK: Held, v_BSGK: Held, first_BL: jax.Array,
            last_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
  """out_BLGRK in q's dtype, and the log-sum-exps lse_BGRL, f32, base 2."""
  batch, length, groups, shared, size = q_BLGRK.shape
  sizes = Sizes.of(q_BLGRK, k_BSGK, plan.tiles)
  rows, width = sizes.blocks * sizes.t, sizes.width

  def laid(x_BL):
    return jnp.pad(jnp.repeat(x_BL, shared, 1), ((0, 0), (0, rows - length * shared)))

  q_BGNK = q_BLGRK.transpose(0, 2, 1, 3, 4).reshape(batch, groups, -1, size)
  q_BGNK = jnp.pad(q_BGNK, ((0, 0), (0, 0), (0, rows - length * shared), (0, width - size)))
  first_BN, last_BN = laid(first_BL), laid(last_BL)
  bounds = key_bounds(first_BN, last_BN, sizes.t, sizes.c)[..., 0::3]
  held, places = sizes.held((k_BSGK, v_BSGK))
  kernel = partial(_kernel, plan, sizes, jax.tree.structure(held))
  acc, top, total = pl.pallas_call(
    kernel, grid=(sizes.parts, groups * sizes.blocks, batch), in_specs=[sizes.query(), *places, *sizes.notes()],
    out_specs=sizes.partial(), interpret=plan.interpret, name='decode',
    out_shape=[jax.ShapeDtypeStruct((batch, groups, sizes.parts, rows, *last), jnp.float32) for last in ((width,), (), ())],
    compiler_params=plt.CompilerParams(num_warps=sizes.warps, num_stages=sizes.stages),
  )(q_BGNK, *jax.tree.leaves(held), first_BN, last_BN, bounds)
  out_BGNK, lse_BGN = (x[:, :, :length * shared] for x in merged(acc, top, total))
  lse_BGLR = lse_BGN.reshape(batch, groups, length, shared)
  out_BGLRK = out_BGNK[..., :size].reshape(batch, groups, length, shared, size)
  return out_BGLRK.transpose(0, 2, 1, 3, 4).astype(q_BLGRK.dtype), lse_BGLR.swapaxes(2, 3)


def backward(plan: Plan, *operands: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """dq, dk and dv, by the kernels of attention_triton: gradients of few queries need not be fast."""
  q_BLGRK = operands[0]
  tiles = attention_triton.tiles_for(q_BLGRK.dtype, q_BLGRK.shape[-1])
  return attention_triton.backward(Plan(plan.kind, plan.scale, plan.softcap, tiles, plan.interpret), *operands)


KERNELS = Kernels(forward, backward)


def merged(acc_BGINK: jax.Array, top_BGIN: jax.Array, total_BGIN: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The softmax over all keys from those of the I parts: out_BGNK, 0 for an empty range, and lse_BGN of base 2."""
  best_BGN = top_BGIN.max(2)
  share_BGIN = jnp.exp2(top_BGIN - best_BGN[:, :, None])
  total_BGN = (share_BGIN * total_BGIN).sum(2)
  some_BGN = total_BGN > 0
  total_BGN = jnp.where(some_BGN, total_BGN, 1)
  out_BGNK = (share_BGIN[..., None] * acc_BGINK).sum(2) / total_BGN[..., None]
  return out_BGNK, jnp.where(some_BGN, best_BGN + jnp.log2(total_BGN), -jnp.inf)


def _kernel(plan, sizes, tree, q_ref, *refs):
  *held, first_ref, last_ref, bounds_ref, acc_ref, top_ref, total_ref = refs
  k_held, v_held = jax.tree.unflatten(tree, held)
  q_TK, first_T1, last_T1 = q_ref[...], first_ref[...][:, None], last_ref[...][:, None]
  start, stop = bounds_ref[0], bounds_ref[1]
  each = jax.lax.div(stop - start + sizes.parts - 1, sizes.parts)
  begin = start + pl.program_id(0) * each

  def step(j, carry):
    acc_TK, top_T, total_T = carry
    (k_CK, k_scale), (v_CK, v_scale) = (block(sizes, held, j, q_TK.dtype) for held in (k_held, v_held))
    x_TC, scale = plan.logits(plt.dot(q_TK, k_CK, trans_b=True) * k_scale)
    keys_1C = j * sizes.c + jnp.arange(sizes.c)[None]
    x_TC = jnp.where((keys_1C >= first_T1) & (keys_1C < last_T1), x_TC, -jnp.inf)
    new_T = jnp.maximum(top_T, jnp.max(x_TC, 1) * scale)
    p_TC, keep_T = jnp.exp2(x_TC * scale - new_T[:, None]), jnp.exp2(top_T - new_T)
    acc_TK = acc_TK * keep_T[:, None] + plt.dot((p_TC * v_scale).astype(v_CK.dtype), v_CK)
    return acc_TK, new_T, total_T * keep_T + jnp.sum(p_TC, 1)

  zeros = [jnp.full(shape, value, jnp.float32) for shape, value in
           (((sizes.t, sizes.width), 0), (sizes.t, LOWEST), (sizes.t, 0))]
  acc_ref[...], top_ref[...], total_ref[...] = jax.lax.fori_loop(begin, jnp.minimum(begin + each, stop), step, tuple(zeros))
