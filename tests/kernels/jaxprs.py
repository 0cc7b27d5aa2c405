"""What a traced program consists of."""

from collections.abc import Iterator
from typing import Any

import jax


def equations(jaxpr: Any) -> Iterator[Any]:
  """All of a jaxpr and of those within it."""
  for eqn in jaxpr.eqns:
    yield eqn
    for value in jax.tree.leaves(eqn.params):
      body = getattr(value, 'jaxpr', value)
      if hasattr(body, 'eqns'):
        yield from equations(body)


def largest(jaxpr: Any) -> int:
  """The most elements that any value of it has."""
  return max((v.aval.size for eqn in equations(jaxpr) for v in eqn.outvars), default=0)
