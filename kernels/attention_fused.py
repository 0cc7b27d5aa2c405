"""What the fused attention kernels share: the custom gradient, partitioning over a mesh, and a rule for vmap.

A kernel is a pair of functions, forward and backward, of arrays on one device. On a mesh each device runs it on its own batch
rows and key heads; positions are gathered (kernels.attention_ring is for rows cut along positions).

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, H = G R, K head size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from kernels.attention_bounds import within
from kernels.ranges import Kind, Ranges

LOG2E = 1.4426950408889634
LOWEST = -1e30                        # initial running maximum: finite, else rows with an empty range would give NaN


@dataclass(frozen=True)
class Plan:
  """The static arguments of a call."""

  kind: Kind
  scale: float
  softcap: float | None
  tiles: Any                          # block sizes, of a type of the kernel's own; hashable
  interpret: bool                     # Pallas's interpret mode, for machines without the accelerator

  def logits(self, raw: jax.Array) -> tuple[jax.Array, float]:
    """(x, c), c > 0: c x is log2(e) * cap(scale * raw), the logits in base 2, for `raw` = q k."""
    if self.softcap is None:
      return raw, self.scale * LOG2E
    return jnp.tanh(raw * (self.scale / self.softcap)), self.softcap * LOG2E

  def uncapped(self, x: jax.Array, slopes: jax.Array) -> jax.Array:
    """Gradients by the logits turned into gradients by scale * q k: times 1 - tanh^2 if there is a soft cap."""
    return slopes if self.softcap is None else slopes * (1 - x * x)


class Kernels(NamedTuple):
  """Attention on one device. Ranges are clipped to [0, S]; lse, the log-sum-exp, has base 2 and is -inf for empty ranges."""

  forward: Callable[..., tuple[jax.Array, jax.Array]]
  """(plan, q_BLGRK, k_BSGK, v_BSGK, first_BL, last_BL) to out_BLGRK in q's dtype and lse_BGRL in f32."""
  backward: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]
  """(plan, q, k, v, first, last, lse_BGRL, delta_BGRL, g_BLGRK) to dq, dk, dv; delta is sum_K out * g."""


def fused(kernels: Kernels, plan: Plan, q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array,
          ranges: Ranges) -> jax.Array:
  """softmax(cap(scale q k)) v over each row's range: [B, L, H, K] in q's dtype, with the kernels' own gradient.

  Under `jax.checkpoint` the name 'attention' saves what the backward pass needs.

  Raises: ValueError for a scale that is not positive.
  """
  if not plan.scale > 0:
    raise ValueError(f'attention with a scale of {plan.scale}: fused kernels take a positive one')
  batch, length, heads, size = q_BLHK.shape
  q = q_BLHK.reshape(batch, length, k_BSGK.shape[2], -1, size)
  k, v = k_BSGK.astype(q.dtype), v_BSGK.astype(q.dtype)
  first, last = within(ranges.first_BL, ranges.last_BL, k.shape[1])
  return _attend(kernels, plan)(q, k, v, first, last).reshape(batch, length, heads, size)


@lru_cache
def _attend(kernels, plan):
  """The call with its gradient. Cached: equal plans give the same function object, so jax does not trace it again."""
  @jax.custom_vjp
  def attend(q, k, v, first, last):
    return forward(q, k, v, first, last)[0]

  def forward(q, k, v, first, last):
    out, lse = (checkpoint_name(x, 'attention') for x in forward_pass(kernels, plan)(q, k, v, first, last))
    return out, (q, k, v, first, last, out, lse)

  def backward(saved, g):
    *operands, out, lse = saved
    return *backward_pass(kernels, plan)(*operands, lse, delta(out, g), g), None, None

  attend.defvjp(forward, backward)
  return attend


def delta(out_BLGRK: jax.Array, g_BLGRK: jax.Array) -> jax.Array:
  """sum_K out * g, f32[B, G, R, L]: the term that the softmax's backward pass subtracts in each row."""
  return jnp.sum(out_BLGRK.astype(jnp.float32) * g_BLGRK.astype(jnp.float32), -1).transpose(0, 2, 3, 1)


@lru_cache
def forward_pass(kernels: Kernels, plan: Plan) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """The forward kernel, partitioned over the current mesh, and usable under vmap."""
  rule = 'b l g r k, b s g k, b s g k, b l, b l -> b l g r k, b g r l'
  return _mapped(partitioned(lambda *arrays: kernels.forward(plan, *arrays), rule))


@lru_cache
def backward_pass(kernels: Kernels, plan: Plan) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
  """The backward kernels, in the same way."""
  rule = 'b l g r k, b s g k, b s g k, b l, b l, b g r l, b g r l, b l g r k -> b l g r k, b s g k, b s g k'
  return _mapped(partitioned(lambda *arrays: kernels.backward(plan, *arrays), rule))


def partitioned(run, rule):
  """`run` on each device's batch rows and key heads: XLA cannot partition a custom call by itself. `rule` names dimensions."""
  places = [[side.split() for side in half.split(',')] for half in rule.split('->')]
  call = custom_partitioning(run)

  def partition(mesh, arguments, results):
    rows, _, heads, *_ = arguments[0].sharding.spec
    axes = {'b': rows, 'g': heads}
    laid = [tuple(NamedSharding(mesh, P(*map(axes.get, letters))) for letters in half) for half in places]
    return mesh, run, laid[1], laid[0]

  call.def_partition(partition, sharding_rule=rule, need_replication_factors=('l', 'r', 'k', 's'))
  return call


def _mapped(run):
  """`run` with a rule for vmap: the mapped dimension is merged into the batch rows."""
  call = custom_vmap(lambda *arrays: tuple(run(*arrays)))

  @call.def_vmap
  def rule(size, mapped, *arrays):
    spread = (x if each else jnp.broadcast_to(x, (size, *x.shape)) for x, each in zip(arrays, mapped))
    results = call(*(x.reshape(-1, *x.shape[2:]) for x in spread))
    return tuple(x.reshape(size, -1, *x.shape[1:]) for x in results), (True,) * len(results)

  return call
