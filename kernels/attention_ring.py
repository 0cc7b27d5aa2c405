"""Ring attention (Liu et al. 2023), for rows sharded along their positions: keys and values pass from device to device.

In each step a device attends with its queries to the block of keys that it holds, merges the result by the log-sum-exps, and
sends the keys on meanwhile. In the backward pass the gradients of keys and values travel with them, and return home after the
last step. Positions lie in an order of kernels.zigzag, contiguous or zig-zag, chosen once for all layers: under a causal mask
zig-zag gives each device equal work in each step; with a sliding window contiguous order needs fewer steps.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from kernels import attention_walk
from kernels.attention import FORMS, UNTRIED, describe
from kernels.attention_call import Call
from kernels.attention_fused import Plan, delta
from kernels.ranges import Kind, Ranges
from kernels.zigzag import Order, places_of, rows_of

KERNELS = {'gpu': ('hopper', 'triton'), 'tpu': ('tpu',), 'cpu': ()}
"""By platform, the implementations whose kernels also give log-sum-exps, by which a ring merges; the fastest first."""


def ring(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, ranges: Ranges, *, spec: P, order: Order,
         scale: float, softcap: float | None = None, implementation: str | None = None) -> jax.Array:
  """softmax(q k) v over each row's range: [B, L, H, K] in q's dtype, sharded as q is.

  `spec` names the axes of the current mesh over which batch rows, positions (one axis) and heads are sharded. Queries and keys
  are sharded alike, their positions in `order`; ranges are in the natural order and not sharded along positions.
  `implementation` names the one that does a device's part, as in `kernels.attention`; 'reference' and 'blocked' both mean
  kernels.attention_walk. Under `jax.checkpoint` the name 'attention' saves what the backward pass needs.

  Raises: ValueError where `order` has another number of devices, where positions do not divide by its chunks, and for an
  implementation that cannot do the call.
  """
  rows, axis, heads = (*spec, None, None, None)[:3]
  n, chunks = order.n, order.n * len(order.begins(0, 0))
  if n != (devices := jax.sharding.get_abstract_mesh().shape[axis]):
    raise ValueError(f'an order of {n} devices on {devices} along {axis}')
  for what, x in ('query', q_BLHK), ('key', k_BSGK):
    if x.shape[1] % chunks:
      raise ValueError(f'a ring of {n} devices and {x.shape[1]} {what} positions: take a multiple of {chunks}')
  steps = order.sees(ranges.kind, k_BSGK.shape[1] // n) if q_BLHK.shape[1] == k_BSGK.shape[1] else n
  form = _form(implementation, describe(q_BLHK, k_BSGK, ranges, softcap))

  def local(q, k, v, first, last):
    kernels, tiles = _kernels(form, q, k, chunks // n)
    plan = Plan(Kind(), scale, softcap, tiles, interpret=False)
    grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
    return _attend(kernels, plan, axis, order, steps)(grouped, k, v, first, last).reshape(q.shape)

  whole, row = P(rows, axis, heads), P(rows)
  call = jax.shard_map(local, in_specs=(whole, whole, whole, row, row), out_specs=whole, check_vma=False)
  k, v = k_BSGK.astype(q_BLHK.dtype), v_BSGK.astype(q_BLHK.dtype)
  return call(q_BLHK, k, v, ranges.first_BL, ranges.last_BL)


def _form(implementation: str | None, call: Call) -> str:
  """The implementation of a device's part. None: the platform's kernels, if they were tried on hardware, else 'blocked'."""
  if implementation is None:
    tried = (name for name in KERNELS[call.platform] if name not in UNTRIED)
    return next((name for name in tried if _refusal(name, call) is None), 'blocked')
  names = sorted(name for forms in KERNELS.values() for name in forms)
  if implementation not in (*names, 'blocked', 'reference'):
    raise ValueError(f'attention by {implementation} cannot be cut along positions, for it gives no log-sum-exps: '
                     f'use {", ".join(names)} or blocked, or leave positions whole')
  if (why := _refusal(implementation, call)) is not None:
    raise ValueError(f'attention by {implementation} cannot do this call: {why}')
  return implementation


def _refusal(name: str, call: Call) -> str | None:
  """Why it cannot do the call, or None; `hopper` pads other head sizes outside of its kernels, so a ring cannot have them."""
  if name == 'hopper' and call.head_size not in (64, 128, 256):
    return f'in a ring it takes head sizes 64, 128 and 256, not {call.head_size}'
  return FORMS[name].refusal(call)


def _kernels(form, q_BLHK, k_BSGK, chunks):
  """The kernels of an implementation, and their tiles for one device's operands."""
  if form == 'hopper':
    from kernels import attention_hopper  # late: importing Pallas takes a quarter of a second
    return attention_hopper.KERNELS, attention_hopper.tiles_for(q_BLHK.shape[3])
  if form == 'triton':
    from kernels import attention_triton
    return attention_triton.KERNELS, attention_triton.tiles_for(q_BLHK.dtype, q_BLHK.shape[3])
  if form == 'tpu':
    from kernels import attention_tpu
    return attention_tpu.KERNELS, attention_tpu.tile_for(q_BLHK, k_BSGK)
  return attention_walk.KERNELS, attention_walk.tile_for(k_BSGK.shape[1] // chunks)


@lru_cache
def _attend(kernels, plan, axis, order, steps):
  """The part of one device, with its gradient; for use inside shard_map."""
  n = order.n

  def seen(i, q, k, first, last):
    """The ranges of this device's rows, as indices into the keys that it holds in step i."""
    here = jax.lax.axis_index(axis)
    bounds = (rows_of(order, here, q.shape[1], x) for x in (first, last))
    return tuple(places_of(order, (here - i) % n, k.shape[1], bound).astype(jnp.int32) for bound in bounds)

  def moved(by, arrays):
    return tuple(jax.lax.ppermute(x, axis, [(i, (i + by) % n) for i in range(n)]) for x in arrays)

  @jax.custom_vjp
  def attend(q, k, v, first, last):
    return forward(q, k, v, first, last)[0]

  def forward(q, k, v, first, last):
    def meet(i, keys, sums):
      ranges = seen(i, q, k, first, last)
      return _if_any(*ranges, lambda: _merged(*sums, *kernels.forward(plan, q, *keys, *ranges)), sums)

    def step(carry, i):
      keys, sums = carry
      return (moved(1, keys), meet(i, keys, sums)), None

    lse = jnp.full((q.shape[0], *q.shape[2:4], q.shape[1]), -jnp.inf, jnp.float32)
    start = (k, v), (jnp.zeros(q.shape, jnp.float32), lse)
    out, lse = meet(steps - 1, *jax.lax.scan(step, start, jnp.arange(steps - 1))[0])
    out, lse = (checkpoint_name(x, 'attention') for x in (out.astype(q.dtype), lse))
    return out, (q, k, v, first, last, out, lse)

  def backward(saved, g):
    q, k, v, first, last, out, lse = saved
    mean = delta(out, g)

    def meet(i, keys, sums):
      ranges = seen(i, q, k, first, last)
      return _if_any(*ranges, lambda: _added(sums, kernels.backward(plan, q, *keys, *ranges, lse, mean, g)), sums)

    def step(carry, i):
      keys, sums = carry
      dq, *dkeys = meet(i, keys, sums)
      return (moved(1, keys), (dq, *moved(1, dkeys))), None

    start = (k, v), tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    dq, *dkeys = meet(steps - 1, *jax.lax.scan(step, start, jnp.arange(steps - 1))[0])
    dkeys = moved(1 - steps, dkeys) if steps > 1 else dkeys
    return *(x.astype(q.dtype) for x in (dq, *dkeys)), None, None

  attend.defvjp(forward, backward)
  return attend


def _if_any(first_BL, last_BL, found, otherwise):
  """`found()` if any range is not empty, else `otherwise`: a device skips keys that none of its rows attends to."""
  return jax.lax.cond(jnp.any(first_BL < last_BL), found, lambda: otherwise)


def _added(sums, parts):
  return tuple(x + part.astype(jnp.float32) for x, part in zip(sums, parts))


def _merged(out_BLGRK, lse_BGRL, part_BLGRK, part_lse_BGRL):
  """The output and log-sum-exp over the keys of both results together."""
  top = jnp.maximum(lse_BGRL, part_lse_BGRL)
  top = jnp.where(top > -jnp.inf, top, 0)
  a, b = jnp.exp2(lse_BGRL - top), jnp.exp2(part_lse_BGRL - top)
  total = a + b
  share_a, share_b = ((x / jnp.where(total > 0, total, 1)).transpose(0, 3, 1, 2)[..., None] for x in (a, b))
  return share_a * out_BLGRK + share_b * part_BLGRK, top + jnp.log2(total)
