"""A mixture of experts: a router sends each token to its best few MLPs. No token is dropped, and none sees another.

Letters: T = B * L tokens, E experts, J the experts chosen for a token.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from model.config import Decoder, Gated, MoE, Plain
from model.linear import Routed, routed, weight
from model.mlp import activate, up_shape
from model.sharding import spec


class Experts(nn.Module):
  """[B, L, D] -> [B, L, D], and the router's losses over the positions where seen_BL is true."""

  config: Decoder
  moe: MoE

  @nn.compact
  def __call__(self, x_BLD: jax.Array, seen_BL: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    config, moe = self.config, self.moe
    w_DE = weight(self, 'router', (config.width, moe.experts), ('embed', 'routes'))
    router_BLE = jnp.einsum('BLD,DE->BLE', x_BLD.astype(jnp.float32), w_DE.astype(jnp.float32))
    gates_BLJ, chosen_BLJ = route(router_BLE, moe)
    shape, names = up_shape(moe.expert)
    up = weight(self, 'up', (moe.experts, config.width, *shape), ('experts', 'embed', *names))
    down = weight(self, 'down', (moe.experts, moe.expert.hidden, config.width), ('experts', 'mlp', 'embed'))
    y_BLD = apply_experts(moe.expert, x_BLD, gates_BLJ, chosen_BLJ, routed(up, (None, None, *names), config.compute_dtype),
                          routed(down, (None, 'mlp', None), config.compute_dtype))
    return y_BLD, losses(router_BLE, chosen_BLJ, seen_BL, moe)


def route(router_BLE: jax.Array, config: MoE) -> tuple[jax.Array, jax.Array]:
  """The gates and the numbers of each position's best experts, f32 and i32 [B, L, J]."""
  gates, chosen = jax.lax.top_k(jax.nn.softmax(router_BLE), config.top_k)
  return (gates / gates.sum(-1, keepdims=True) if config.renormalise else gates), chosen


def losses(router_BLE: jax.Array, chosen_BLJ: jax.Array, seen_BL: jax.Array, config: MoE) -> dict[str, jax.Array]:
  """The penalties of each row, f32[B] each: means over its positions, times the weights that the config gives them.

  balance: E * sum_e f_e p_e, with f_e the share of the row's choices that fell on expert e, p_e its mean probability:
  1 if even, E if all fall on one (Fedus et al. 2021, over a row instead of a batch).
  router_z: logsumexp^2 of the router's logits (Zoph et al. 2022).
  """
  weights_BL = seen_BL / jnp.maximum(seen_BL.sum(1, keepdims=True), 1)
  hits_BLE = jax.nn.one_hot(chosen_BLJ, config.experts).mean(2)
  share_BE = jnp.einsum('BLE,BL->BE', hits_BLE, weights_BL)
  mean_BE = jnp.einsum('BLE,BL->BE', jax.nn.softmax(router_BLE), weights_BL)
  z_BL = jnp.square(jax.nn.logsumexp(router_BLE, -1))
  return {'balance': config.balance * config.experts * jnp.sum(share_BE * mean_BE, -1),
          'router_z': config.router_z * jnp.sum(z_BL * weights_BL, 1)}


def apply_experts(expert: Gated | Plain, x_BLD: jax.Array, gates_BLJ: jax.Array, chosen_BLJ: jax.Array, up: Routed,
                  down: Routed) -> jax.Array:
  """The gated sum of each position's experts, [B, L, D]. On a mesh, each device sorts its own tokens."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return _experts(expert, x_BLD, gates_BLJ, chosen_BLJ, up, down)
  sizes = dict(mesh.shape)
  tokens = spec(('batch', 'length', None), x_BLD.shape, sizes)
  [hidden] = spec(('mlp',), (expert.hidden,), sizes)

  def local(x_BLD, gates_BLJ, chosen_BLJ, *arrays):
    y_BLD = _experts(expert, x_BLD, gates_BLJ, chosen_BLJ, *(w._replace(arrays=own) for w, own in zip((up, down), arrays)))
    return jax.lax.psum(y_BLD, hidden) if hidden else y_BLD

  cut = (tuple(spec(names, array.shape, sizes) for names, array in zip(w.names, w.arrays)) for w in (up, down))
  return jax.shard_map(local, in_specs=(tokens, tokens, tokens, *cut), out_specs=tokens)(
    x_BLD, gates_BLJ, chosen_BLJ, up.arrays, down.arrays)


def _experts(expert: Gated | Plain, x_BLD, gates_BLJ, chosen_BLJ, up: Routed, down: Routed) -> jax.Array:
  """The gated sum on one device: tokens are sorted by expert, so that each expert multiplies one stretch of rows."""
  x_TD = x_BLD.reshape(-1, x_BLD.shape[-1])
  chosen_TJ = chosen_BLJ.reshape(len(x_TD), -1)
  order = jnp.argsort(chosen_TJ.reshape(-1), stable=True)
  sizes_E = jnp.bincount(chosen_TJ.reshape(-1), length=len(up.arrays[0])).astype(jnp.int32)
  h = up.times(x_TD[order // chosen_TJ.shape[1]], sizes_E, *up.arrays).astype(x_TD.dtype)
  y = down.times(activate(expert, h), sizes_E, *down.arrays).astype(h.dtype)
  y_TJD = y[jnp.argsort(order)].reshape(*chosen_TJ.shape, -1)
  y_TD = jnp.einsum('TJD,TJ->TD', y_TJD.astype(jnp.float32), gates_BLJ.reshape(chosen_TJ.shape))
  return y_TD.reshape(x_BLD.shape).astype(x_BLD.dtype)
