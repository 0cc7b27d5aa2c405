"""Which of several ways to compute one thing a door takes, and why none that it would rather take."""

import math
from typing import NamedTuple

import jax


class Choice(NamedTuple):
  """Who does a call, and why those before it in the order of preference do not."""

  name: str
  refused: dict[str, str]

  def __str__(self) -> str:
    others = '; '.join(f'not {name}: {why}' for name, why in self.refused.items())
    return f'{self.name} ({others})' if others else self.name


def devices() -> int:
  """Over how many devices the compiler cuts what is traced here: those of the mesh, but for axes that are cut by hand."""
  mesh = jax.sharding.get_abstract_mesh()
  return math.prod(size for axis, size in mesh.shape.items() if axis not in mesh.manual_axes)
