"""Attention over rows that are cut along their positions: each device keeps its queries, and keys go round in a ring.

After Liu et al. 2023 (Ring Attention). With n devices along the axis, n times over a device attends to the keys that lie
with it, its ranges counted from where these begin, merges what it got by the log-sum-exps, and passes the keys on. Going
backward their gradients travel with them and are home after the last step. A device whose rows see nothing of a shard does
nothing in that step: causal rows leave the first devices idle for half of the time.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from kernels import attention_tpu, attention_triton
from kernels.attention_bounds import within
from kernels.attention_fused import Kernels, Plan, delta
from kernels.ranges import Kind, Ranges


def ring(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, ranges: Ranges, *, spec: P, scale: float,
         softcap: float | None = None) -> jax.Array:
  """softmax(q k) v over each row's range: [B, L, H, K] in q's dtype, laid out as q is.

  `spec` names the axes of the mesh that is set: those of rows, the one of positions, and those of heads. Queries and keys
  are cut alike. Raises: ValueError where positions do not divide.
  """
  rows, axis, heads = (*spec, None, None, None)[:3]
  n = jax.sharding.get_abstract_mesh().shape[axis]
  for what, x in ('query', q_BLHK), ('key', k_BSGK):
    if x.shape[1] % n:
      raise ValueError(f'a ring of {n} devices and {x.shape[1]} {what} positions: take a multiple of {n}')

  def local(q, k, v, first, last):
    kernels, tiles = _kernels(q, k)
    plan = Plan(Kind(), scale, softcap, tiles, interpret=False)
    grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
    return _attend(kernels, plan, axis, n)(grouped, k, v, first, last).reshape(q.shape)

  whole, row = P(rows, axis, heads), P(rows, axis)
  call = jax.shard_map(local, in_specs=(whole, whole, whole, row, row), out_specs=whole, check_vma=False)
  k, v = k_BSGK.astype(q_BLHK.dtype), v_BSGK.astype(q_BLHK.dtype)
  return call(q_BLHK, k, v, *within(ranges.first_BL, ranges.last_BL, k.shape[1]))


def _kernels(q_BLHK, k_BSGK):
  """Of the platform, and their tiles."""
  if jax.default_backend() == 'gpu':
    return attention_triton.KERNELS, attention_triton.tiles_for(q_BLHK.dtype, q_BLHK.shape[3])
  if jax.default_backend() == 'tpu':
    return attention_tpu.KERNELS, attention_tpu.tile_for(q_BLHK, k_BSGK)
  return PLAIN, None


@lru_cache
def _attend(kernels, plan, axis, n):
  """The call on one device, with its gradient."""
  onward = [(i, (i + 1) % n) for i in range(n)]

  def seen(step, k, first, last):
    begin = (jax.lax.axis_index(axis) - step) % n * k.shape[1]
    return within(first - begin, last - begin, k.shape[1])

  def pass_on(*arrays):
    return tuple(jax.lax.ppermute(x, axis, onward) for x in arrays)

  @jax.custom_vjp
  def attend(q, k, v, first, last):
    return forward(q, k, v, first, last)[0]

  def forward(q, k, v, first, last):
    def step(carry, i):
      k, v, out, lse = carry
      found = kernels.forward(plan, q, k, v, *seen(i, k, first, last))
      return (*pass_on(k, v), *_merged(out, lse, *found)), None

    lse = jnp.full((q.shape[0], *q.shape[2:4], q.shape[1]), -jnp.inf, jnp.float32)
    (_, _, out, lse), _ = jax.lax.scan(step, (k, v, jnp.zeros(q.shape, jnp.float32), lse), jnp.arange(n))
    out = out.astype(q.dtype)
    return out, (q, k, v, first, last, out, lse)

  def backward(saved, g):
    q, k, v, first, last, out, lse = saved
    mean = delta(out, g)

    def step(carry, i):
      k, v, dq, dk, dv = carry
      found = kernels.backward(plan, q, k, v, *seen(i, k, first, last), lse, mean, g)
      dq, dk, dv = (x + each.astype(jnp.float32) for x, each in zip((dq, dk, dv), found))
      k, v, dk, dv = pass_on(k, v, dk, dv)
      return (k, v, dq, dk, dv), None

    sums = (jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    (_, _, *sums), _ = jax.lax.scan(step, (k, v, *sums), jnp.arange(n))
    return *(x.astype(like.dtype) for x, like in zip(sums, (q, k, v))), None, None

  attend.defvjp(forward, backward)
  return attend


def _merged(out_BLGRK, lse_BGRL, part_BLGRK, part_lse_BGRL):
  """Two results over keys of their own as one over all of them."""
  top = jnp.maximum(lse_BGRL, part_lse_BGRL)
  top = jnp.where(top > -jnp.inf, top, 0)
  a, b = jnp.exp2(lse_BGRL - top), jnp.exp2(part_lse_BGRL - top)
  total = a + b
  share_a, share_b = ((x / jnp.where(total > 0, total, 1)).transpose(0, 3, 1, 2)[..., None] for x in (a, b))
  return share_a * out_BLGRK + share_b * part_BLGRK, top + jnp.log2(total)


def _plain(plan, q_BLGRK, k_BSGK, first_BL, last_BL):
  """x and c as the plan has them, and what is seen, for all scores at once: [B, G, R, L, S]."""
  raw = jnp.einsum('BLGRK,BSGK->BGRLS', q_BLGRK, k_BSGK, preferred_element_type=jnp.float32)
  keys = jnp.arange(k_BSGK.shape[1])
  seen_BLS = (keys >= first_BL[..., None]) & (keys < last_BL[..., None])
  return *plan.logits(raw), seen_BLS[:, None, None]


def _plain_forward(plan, q_BLGRK, k_BSGK, v_BSGK, first_BL, last_BL):
  x, c, seen = _plain(plan, q_BLGRK, k_BSGK, first_BL, last_BL)
  top = jnp.max(x * c, -1, keepdims=True, initial=-1e30, where=seen)
  weights = jnp.where(seen, jnp.exp2(x * c - top), 0)
  total = weights.sum(-1, keepdims=True)
  out = jnp.einsum('BGRLS,BSGK->BLGRK', weights / jnp.where(total > 0, total, 1), v_BSGK.astype(jnp.float32))
  return out.astype(q_BLGRK.dtype), (top + jnp.log2(total))[..., 0]


def _plain_backward(plan, q_BLGRK, k_BSGK, v_BSGK, first_BL, last_BL, lse_BGRL, delta_BGRL, g_BLGRK):
  x, c, seen = _plain(plan, q_BLGRK, k_BSGK, first_BL, last_BL)
  product = partial(jnp.einsum, preferred_element_type=jnp.float32)
  p = jnp.where(seen, jnp.exp2(x * c - lse_BGRL[..., None]), 0)
  pull = product('BLGRK,BSGK->BGRLS', g_BLGRK, v_BSGK) - delta_BGRL[..., None]
  slopes = plan.scale * plan.uncapped(x, p * pull)
  dq, dk = product('BGRLS,BSGK->BLGRK', slopes, k_BSGK), product('BGRLS,BLGRK->BSGK', slopes, q_BLGRK)
  return tuple(a.astype(q_BLGRK.dtype) for a in (dq, dk, product('BGRLS,BLGRK->BSGK', p, g_BLGRK)))


PLAIN = Kernels(_plain_forward, _plain_backward)
"""The kernels where none is written for the chip: all scores of two shards at once, in XLA."""
