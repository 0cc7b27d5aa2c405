"""What fused kernels of attention share: their gradient, their partition over a mesh, and maps over examples.

A kernel is a pair of functions of arrays on one device. Rows of the batch and key heads go to the devices that hold them;
positions are gathered (kernels.attention_ring keeps those apart).

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
LOWEST = -1e30                        # where a running maximum begins: finite, or rows that see nothing would give NaN


@dataclass(frozen=True)
class Plan:
  """The static half of a call."""

  kind: Kind
  scale: float
  softcap: float | None
  tiles: Any                          # the kernel's own sizes of blocks; hashable
  interpret: bool                     # run by XLA, where the chip is not

  def logits(self, raw: jax.Array) -> tuple[jax.Array, float]:
    """x and a positive c such that the base-2 logits of products `raw` are c x; the maximum of x is that of the logits."""
    if self.softcap is None:
      return raw, self.scale * LOG2E
    return jnp.tanh(raw * (self.scale / self.softcap)), self.softcap * LOG2E

  def uncapped(self, x: jax.Array, slopes: jax.Array) -> jax.Array:
    """Gradients of the logits as gradients of what was capped."""
    return slopes if self.softcap is None else slopes * (1 - x * x)


class Kernels(NamedTuple):
  """Attention on one device. Ranges come within [0, S); lse is of base 2, and -inf where a row sees nothing."""

  forward: Callable[..., tuple[jax.Array, jax.Array]]
  """(plan, q_BLGRK, k_BSGK, v_BSGK, first_BL, last_BL) to out_BLGRK in q's type and lse_BGRL in f32."""
  backward: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]
  """(plan, q, k, v, first, last, lse_BGRL, delta_BGRL, g_BLGRK) to dq, dk, dv; delta is the sum of out times g."""


def fused(kernels: Kernels, plan: Plan, q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array,
          ranges: Ranges) -> jax.Array:
  """softmax(cap(scale q k)) v over each row's range: [B, L, H, K] in q's dtype, with the kernels' own gradient.

  Under rematerialisation the name 'attention' saves what the backward pass needs. Raises: ValueError for a scale that is
  not positive.
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
  """The call with a gradient; kept, so that traces that are alike are the same to jax."""
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
  """f32[B, G, R, L]: what the gradient of each row's probabilities is measured from."""
  return jnp.sum(out_BLGRK.astype(jnp.float32) * g_BLGRK.astype(jnp.float32), -1).transpose(0, 2, 3, 1)


@lru_cache
def forward_pass(kernels: Kernels, plan: Plan) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """The forward kernel over whatever mesh is set, and under vmap."""
  rule = 'b l g r k, b s g k, b s g k, b l, b l -> b l g r k, b g r l'
  return _mapped(partitioned(lambda *arrays: kernels.forward(plan, *arrays), rule))


@lru_cache
def backward_pass(kernels: Kernels, plan: Plan) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
  """The backward kernels likewise."""
  rule = 'b l g r k, b s g k, b s g k, b l, b l, b g r l, b g r l, b l g r k -> b l g r k, b s g k, b s g k'
  return _mapped(partitioned(lambda *arrays: kernels.backward(plan, *arrays), rule))


def partitioned(run, rule):
  """`run` on each device's rows and key heads: what the compiler could not know of a kernel."""
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
  """`run` under vmap: what is mapped over joins the rows of the batch."""
  call = custom_vmap(lambda *arrays: tuple(run(*arrays)))

  @call.def_vmap
  def rule(size, mapped, *arrays):
    spread = (x if each else jnp.broadcast_to(x, (size, *x.shape)) for x, each in zip(arrays, mapped))
    results = call(*(x.reshape(-1, *x.shape[2:]) for x in spread))
    return tuple(x.reshape(size, -1, *x.shape[1:]) for x in results), (True,) * len(results)

  return call
