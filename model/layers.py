"""A smaller model out of a larger one's layers.

    edit = TakeLayers((0, 6, 12, 18, 24, 29))
    Run(restore=teacher, edits=(edit,), model=edit.model(teacher.model), objective=Distil(teacher), ...)
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from model.config import Decoder
from model.edit import Edit
from model.errors import ConfigError
from model.sharding import is_box, unbox
from model.stack import period, role_of


@dataclass(frozen=True)
class TakeLayers(Edit):
  """The model with these of its layers alone, in this order; what comes before and after them stays (Sanh et al. 2019)."""

  layers: tuple[int, ...]

  def __post_init__(self):
    if not self.layers or min(self.layers) < 0:
      raise ConfigError('config.out-of-range', f'TakeLayers.layers = {self.layers}', 'it counts layers from 0',
                        'name one or more')

  @classmethod
  def spread(cls, count: int, of: int) -> 'TakeLayers':
    """`count` of so many layers, the first and the last among them, evenly spread. Raises: ConfigError."""
    if not 1 <= count <= of:
      raise ConfigError('config.out-of-range', f'{count} of {of} layers', 'a student has no more than its teacher',
                        f'use 1 to {of}')
    return cls(tuple(int(place) for place in np.linspace(0, of - 1, count).round()) if count > 1 else (0,))

  def __call__(self, params: Any, key: jax.Array) -> Any:
    """Plain or boxed. Raises: ConfigError `edit.no-layer` where the model has fewer."""
    count = max(map(len, jax.tree.leaves(unbox(params['layers']))))
    self._check(count)

    def take(leaf: Any) -> Any:
      if is_box(leaf):
        return leaf.replace(value=take(leaf.value))
      lacking = count - len(leaf)              # of the first layers, see model.stack
      return leaf[np.array([layer - lacking for layer in self.layers if layer >= lacking], int)]

    return {**params, 'layers': jax.tree.map(take, params['layers'], is_leaf=is_box)}

  def model(self, config: Decoder) -> Decoder:
    """The config with fewer layers. Raises: ConfigError `edit.other-role` if a layer's window or rotation would change."""
    self._check(config.layers)
    moved = [layer for place, layer in enumerate(self.layers) if role_of(config, place) != role_of(config, layer)]
    if moved:
      raise ConfigError('edit.other-role', f'TakeLayers.layers = {self.layers}', f'layer {moved[0]} would see or turn '
                        f'another way at its new place: the roles of this model repeat every {period(config)} layers',
                        'take layers that keep their roles')
    return replace(config, layers=len(self.layers))

  def _check(self, count: int) -> None:
    if max(self.layers) >= count:
      raise ConfigError('edit.no-layer', f'TakeLayers.layers = {self.layers}', f'the model has the layers 0 to {count - 1}',
                        'name some of these')
