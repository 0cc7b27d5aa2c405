"""Hints: a distillation loss between hidden states, the student's through a learned matrix.

Letters: B rows, L positions, D width of the student, E of the teacher.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from model.decoder import box
from model.edit import Edit
from model.errors import ConfigError
from model.sharding import is_box
from model.start import normal
from train.types import Key, Params

HIDDEN_MAP = 'hidden_map'


class Measure(ABC):
  """A distance between hidden states of a student and of its teacher."""

  @abstractmethod
  def __call__(self, ours_BLE: jax.Array, theirs_BLE: jax.Array) -> jax.Array:
    """f32[B, L]."""


@dataclass(frozen=True)
class Squared(Measure):
  """The mean over E of squared differences (Romero et al. 2014)."""

  def __call__(self, ours_BLE: jax.Array, theirs_BLE: jax.Array) -> jax.Array:
    return jnp.square(ours_BLE - theirs_BLE).mean(-1)


@dataclass(frozen=True)
class Cosine(Measure):
  """1 - the cosine of the angle (Sanh et al. 2019)."""

  def __call__(self, ours_BLE: jax.Array, theirs_BLE: jax.Array) -> jax.Array:
    sizes_BL = jnp.square(ours_BLE).sum(-1) * jnp.square(theirs_BLE).sum(-1)
    return 1 - (ours_BLE * theirs_BLE).sum(-1) * jax.lax.rsqrt(jnp.maximum(sizes_BL, 1e-20))


@dataclass(frozen=True)
class Hints:
  """`weight` times the distance between the last hidden states, the student's mapped by `HiddenMap` (Jiao et al. 2019)."""

  weight: float = 1.0
  measure: Squared | Cosine = Squared()

  def __post_init__(self):
    if not self.weight > 0:
      raise ConfigError('config.out-of-range', f'Hints.weight = {self.weight}', 'it weighs a distance',
                        'give a number above 0, or leave hidden at None')


@dataclass(frozen=True)
class HiddenMap(Edit):
  """Adds a learned matrix, float32, from the student's hidden states to the `width` of the teacher's."""

  width: int

  def __call__(self, params: Params, key: Key) -> Params:
    """Plain or boxed. Raises: ConfigError `edit.twice` if it is there."""
    if HIDDEN_MAP in params:
      raise ConfigError('edit.twice', 'HiddenMap', 'there is a map beside the model', 'leave it out of the edits')
    table: Any = params['embedding']['table']
    inputs = (table.value if is_box(table) else table).shape[1]
    matrix_DE: Any = normal(key, (inputs, self.width)) * inputs ** -0.5
    learned = box((inputs, self.width), 'embed', 'mlp').replace(value=matrix_DE) if is_box(table) else matrix_DE
    return {**params, HIDDEN_MAP: {'weight': learned}}


def far(hints: Hints, params: Params, ours_BLD: jax.Array, theirs_BLE: jax.Array, weights_BL: jax.Array) -> jax.Array:
  """The sum over positions of their weights times the distance, f32[]; `hints.weight` is not yet in it."""
  ours_BLE = jnp.einsum('BLD,DE->BLE', ours_BLD.astype(jnp.float32), params[HIDDEN_MAP]['weight'].astype(jnp.float32))
  far_BL = hints.measure(ours_BLE, theirs_BLE.astype(jnp.float32))
  return jnp.where(weights_BL > 0, weights_BL * far_BL, 0.0).sum()
