"""The choice of one of several implementations, with the reasons against those preferred to it."""

import math
from typing import NamedTuple

import jax


class Choice(NamedTuple):
  """The name of the implementation, and why each that comes before it in the order of preference cannot do the call."""

  name: str
  refused: dict[str, str]

  def __str__(self) -> str:
    others = '; '.join(f'not {name}: {why}' for name, why in self.refused.items())
    return f'{self.name} ({others})' if others else self.name


def devices() -> int:
  """How many devices the compiler partitions over here: those of the current mesh, without its manual (shard_map) axes."""
  mesh = jax.sharding.get_abstract_mesh()
  return math.prod(size for axis, size in mesh.shape.items() if axis not in mesh.manual_axes)
