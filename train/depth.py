"""Learning rates by depth: lower layers learn more slowly, and begin later (ULMFiT, Howard & Ruder 2018, section 3.3).

    Optimizer(AdamW(lr=2e-4), depth=ByDepth(decay=0.95))                     the rate of a layer is 0.95 of that above it
    Optimizer(AdamW(lr=1e-3), depth=ByDepth(decay=1 / 2.6, unfreeze=50))     one more layer every 50 steps, from the top

It is a link of the optax chain after the rule and its weight decay, so that both are scaled alike. The multipliers of muP are
applied besides.

Layers are stacked on a leading axis, the last entry being the top layer. A leaf with fewer entries than there are layers
(because the first layers lack it, or `FreezeLowest` freezes them) is taken to belong to the upper ones.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import tree_leaves_with_path, tree_map_with_path

from model.errors import ConfigError
from model.freeze import BEFORE


@dataclass(frozen=True)
class ByDepth:
  """A layer with n layers above it learns at `decay ** n` of the rate, the embeddings as one layer below the first. The last
  norm, the head and what edits added have the full rate.

  With `unfreeze`, the last norm, the head and what edits added learn from the first step; the top layer joins after
  `unfreeze` steps, the next after twice as many, and the embeddings last of all. Until then a parameter does not change at
  all, not even by weight decay. Its gradient is computed nevertheless and enters its moments: with moments of zero beside a
  step count that has run on, its first updates would be too large. The clipped norm is that of the whole model throughout.

  An embedding that is tied to the head counts as an embedding.
  """

  decay: float = 0.95
  unfreeze: int = 0

  def __post_init__(self):
    if not 0 < self.decay <= 1 or self.unfreeze < 0:
      raise ConfigError('config.out-of-range', f'decay = {self.decay}, unfreeze = {self.unfreeze}',
                        'lower layers learn at a share of the rate, and wait for a number of steps',
                        'use for example ByDepth(decay=0.95), or ByDepth(1 / 2.6, unfreeze=100)')

  def __call__(self) -> optax.GradientTransformation:
    """A link of the chain that counts the steps which it sees."""

    def init(params: Any) -> 'Waited':
      return Waited(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: 'Waited', params: Any = None) -> tuple[Any, 'Waited']:
      layers = max((len(leaf) for path, leaf in tree_leaves_with_path(updates) if _part(path) == 'layers'), default=0)

      def scaled(path: Any, leaf: jax.Array) -> jax.Array:
        above = _above(path, leaf, layers)
        rates, turns = self.decay ** np.maximum(above, 0), np.asarray(above + 1)
        return jnp.where(state.steps >= self.unfreeze * turns, leaf * rates.astype(leaf.dtype), jnp.zeros_like(leaf))

      return tree_map_with_path(scaled, updates), Waited(state.steps + 1)

    return optax.GradientTransformation(init, update)


class Waited(NamedTuple):
  """The state of the link: how many steps it has seen."""

  steps: jax.Array                    # i32[]


def _part(path: Any) -> str:
  """'layers', the name of a part before the layers (`BEFORE`), or '' for all else; also in a second model beside the first."""
  names = [getattr(step, 'key', '') for step in path]
  return next((name for name in names if name in ('layers', *BEFORE)), '')


def _above(path: Any, leaf: jax.Array, layers: int) -> np.ndarray:
  """How many layers are above each entry of a parameter, f64[N, 1, ...] or f64[]; -1 for what is above them all."""
  part = _part(path)
  if part == 'layers':
    return np.arange(len(leaf) - 1.0, -1.0, -1.0).reshape(-1, *(1,) * (leaf.ndim - 1))
  return np.asarray(float(layers) if part else -1.0)
