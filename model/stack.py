"""The stack of layers: unrolled or as a scan, with or without remat.

Parameters are stacked on a leading axis of N layers either way, so that a checkpoint fits both. A parameter that the first
layer lacks (the norm of its attention, where that is left out) is stacked for the others: N - 1.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from model.attention import Sight
from model.block import Aux, Block
from model.cache import Layer
from model.config import Compute, Decoder, Rotary
from model.sharding import reordered

POLICIES = {'dots': jax.checkpoint_policies.save_only_these_names('matmul', 'attention'), 'full': None}


class Role(NamedTuple):
  """How layers with weights of the same shapes differ."""

  local: bool                         # its attention has a window
  turned: bool                        # its queries and keys are rotated
  bare: bool                          # no norm before its attention, and so one weight less


def role_of(config: Decoder, layer: int) -> Role:
  """The role of this layer."""
  windows, turns = _patterns(config)
  bare = layer == 0 and config.placement == 'pre_but_first'
  return Role(windows[layer % len(windows)] == 'local', turns[layer % len(turns)] == 'turned', bare)


def period(config: Decoder) -> int:
  """After how many layers the roles repeat, that of a bare first layer aside."""
  return math.lcm(*map(len, _patterns(config)))


def _patterns(config: Decoder) -> tuple[tuple[str, ...], tuple[str, ...]]:
  window, positions = config.attention.window, config.positions
  return (('global',) if window is None else window.pattern,
          positions.pattern if isinstance(positions, Rotary) else ('still',))


def split(stacked: Any, layers: int) -> tuple[Any, ...]:
  """The parameters of each layer, None for those that it lacks. One split each, whose transpose is one concatenation."""
  leaves, tree = jax.tree.flatten(stacked)
  parts = [[None] * (layers - len(w)) + _apart(w) for w in leaves]
  return tuple(jax.tree.unflatten(tree, part) for part in zip(*parts))


def _apart(w: jax.Array) -> list[jax.Array]:
  return [part.reshape(w.shape[1:]) for part in jax.lax.split(w, (1,) * len(w))] if len(w) else []


class Stack:
  """Calls the blocks of a decoder: (layers' parameters, x_BLD, ...) -> x_BLD, the cache's layers, router losses."""

  def __init__(self, config: Decoder, compute: Compute):
    self.config, self.scans = config, compute.scans(config.layers)
    implementation = None if compute.attention == 'auto' else compute.attention

    def applied(bare: bool) -> Callable[..., Any]:
      block = Block(config, implementation, bare)

      def apply(params, x_BLD: jax.Array, sight: Sight, layer: Layer | None):
        return block.apply({'params': params}, x_BLD, sight, layer)

      if compute.remat == 'none':
        return apply
      return jax.checkpoint(apply, policy=POLICIES[compute.remat], prevent_cse=not self.scans)

    self.apply = {bare: applied(bare) for bare in (False, True)}

  def __call__(self, params: Any, x_BLD: jax.Array, sights: dict[Role, Sight],
               cache: tuple[Layer, ...] | None = None) -> tuple[jax.Array, tuple[Layer, ...] | None, Aux]:
    """x_BLD, the cache's layers and the router losses. The positions of x lie in the order of the first layer's sight."""
    if cache is None and self.scans and not isinstance(params, tuple):
      x_BLD, aux = self._scan(params, x_BLD, sights)
    else:
      parts = params if isinstance(params, tuple) else split(params, self.config.layers)
      x_BLD, cache, aux = self._unroll(parts, x_BLD, sights, cache)
    return x_BLD, cache, jax.tree.map(lambda total_B: total_B / self.config.layers, aux)

  def _unroll(self, parts, x_BLD, sights, cache, first: int = 0):
    written: list[Layer | None] = []
    total: Aux = {}
    order = start = sights[role_of(self.config, 0)].order
    for i, params in enumerate(parts):
      role = role_of(self.config, first + i)
      sight = sights[role]
      x_BLD, order = reordered(x_BLD, order, sight.order), sight.order
      x_BLD, layer, aux = self.apply[role.bare](params, x_BLD, sight, None if cache is None else cache[i])
      written.append(layer)
      total = _added(total, aux)
    return reordered(x_BLD, order, start), None if cache is None else tuple(written), total

  def _scan(self, params, x_BLD, sights):
    """A scan over groups of layers, each a period of roles; a bare first layer and left-over layers are unrolled."""
    layers, size, begin = self.config.layers, period(self.config), int(role_of(self.config, 0).bare)
    groups = (layers - begin) // size
    end = begin + groups * size

    def apart(x_BLD, total, start, stop):
      parts = split(_between(params, layers, start, stop), stop - start)
      x_BLD, _, aux = self._unroll(parts, x_BLD, sights, None, start)
      return x_BLD, _added(total, aux)

    def body(x_BLD, group):
      x_BLD, _, aux = self._unroll(group, x_BLD, sights, None, begin)
      return x_BLD, aux

    x_BLD, total = apart(x_BLD, {}, 0, begin)
    if groups:
      x_BLD, aux = jax.lax.scan(body, x_BLD, _dealt(_between(params, layers, begin, end), size))
      total = _added(total, jax.tree.map(lambda each: each.sum(0), aux))
    return apart(x_BLD, total, end, layers)


def _dealt(stacked: Any, size: int) -> tuple[Any, ...]:
  """For each place in a group of so many layers the parameters of those that stand there, stacked.

  A loop that takes them as they are need not keep them for its backward pass: what it makes of them, it would.
  """
  leaves, tree = jax.tree.flatten(stacked)
  parts = [[part.squeeze(1) for part in jax.lax.split(w.reshape(-1, size, *w.shape[1:]), (1,) * size, axis=1)] for w in leaves]
  return tuple(jax.tree.unflatten(tree, part) for part in zip(*parts))


def _between(stacked: Any, layers: int, start: int, stop: int) -> Any:
  """The parameters of the layers from `start` until `stop`, still stacked."""
  return jax.tree.map(lambda w: w[max(start - layers + len(w), 0):max(stop - layers + len(w), 0)], stacked)


def _added(total: Aux, aux: Aux) -> Aux:
  return jax.tree.map(jnp.add, total, aux) if total and aux else total or aux
