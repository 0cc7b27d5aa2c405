"""The layers one after another: written out or as one loop, with all kept for the backward pass or computed again.

Parameters are stacked on a leading axis of N layers whichever way it is, so that a checkpoint fits both.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from model.attention import Sight
from model.block import Aux, Block
from model.cache import Layer
from model.config import Compute, Decoder, Rotary

POLICIES = {
  'dots': jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names('attention')),
  'full': None,
}


class Role(NamedTuple):
  """What sets a layer apart from others, though its weights have the same shapes."""

  local: bool                         # it sees through a window
  turned: bool                        # its queries and keys turn with the position


def role_of(config: Decoder, layer: int) -> Role:
  """The role of this layer."""
  windows, turns = _patterns(config)
  return Role(windows[layer % len(windows)] == 'local', turns[layer % len(turns)] == 'turned')


def period(config: Decoder) -> int:
  """After how many layers the roles begin again."""
  return math.lcm(*map(len, _patterns(config)))


def _patterns(config: Decoder) -> tuple[tuple[str, ...], tuple[str, ...]]:
  window, positions = config.attention.window, config.positions
  return (('global',) if window is None else window.pattern,
          positions.pattern if isinstance(positions, Rotary) else ('still',))


def split(stacked: Any, layers: int) -> tuple[Any, ...]:
  """The parameters of each layer. One split each, whose transpose is one concatenation of gradients."""
  leaves, tree = jax.tree.flatten(stacked)
  parts = [[part.reshape(w.shape[1:]) for part in jax.lax.split(w, (1,) * layers)] for w in leaves]
  return tuple(jax.tree.unflatten(tree, part) for part in zip(*parts))


class Stack:
  """Calls the blocks of a decoder: (layers' parameters, x_BLD, ...) -> x_BLD, the cache's layers, router losses."""

  def __init__(self, config: Decoder, compute: Compute):
    self.config, self.scans = config, compute.scans(config.layers)
    block = Block(config, None if compute.attention == 'auto' else compute.attention)

    def apply(params, x_BLD: jax.Array, sight: Sight, seen_BL: jax.Array, layer: Layer | None):
      return block.apply({'params': params}, x_BLD, sight, seen_BL, layer)

    self.apply = apply
    if compute.remat != 'none':
      self.apply = jax.checkpoint(apply, policy=POLICIES[compute.remat], prevent_cse=not self.scans)

  def __call__(self, params: Any, x_BLD: jax.Array, sights: dict[Role, Sight], seen_BL: jax.Array,
               cache: tuple[Layer, ...] | None = None) -> tuple[jax.Array, tuple[Layer, ...] | None, Aux]:
    if cache is None and self.scans and not isinstance(params, tuple):
      x_BLD, aux = self._scan(params, x_BLD, sights, seen_BL)
    else:
      parts = params if isinstance(params, tuple) else split(params, self.config.layers)
      x_BLD, cache, aux = self._unroll(parts, x_BLD, sights, seen_BL, cache)
    return x_BLD, cache, jax.tree.map(lambda total_B: total_B / self.config.layers, aux)

  def _unroll(self, parts, x_BLD, sights, seen_BL, cache, first: int = 0):
    written: list[Layer | None] = []
    total: Aux = {}
    for i, params in enumerate(parts):
      sight = sights[role_of(self.config, first + i)]
      x_BLD, layer, aux = self.apply(params, x_BLD, sight, seen_BL, None if cache is None else cache[i])
      written.append(layer)
      total = jax.tree.map(jnp.add, total, aux) if total else aux
    return x_BLD, None if cache is None else tuple(written), total

  def _scan(self, params, x_BLD, sights, seen_BL):
    """A loop over groups of layers as long as the period of their roles; the layers that are left over follow it."""
    size = period(self.config)
    groups, rest = divmod(self.config.layers, size)
    looped = groups * size

    def body(x_BLD, group):
      x_BLD, _, aux = self._unroll(split(group, size), x_BLD, sights, seen_BL, None)
      return x_BLD, aux

    grouped = jax.tree.map(lambda w: w[:looped].reshape(groups, size, *w.shape[1:]), params)
    x_BLD, aux = jax.lax.scan(body, x_BLD, grouped)
    aux = jax.tree.map(lambda each: each.sum(0), aux)
    if rest:
      last = split(jax.tree.map(lambda w: w[looped:], params), rest)
      x_BLD, _, more = self._unroll(last, x_BLD, sights, seen_BL, None, first=looped)
      aux = jax.tree.map(jnp.add, aux, more)
    return x_BLD, aux
