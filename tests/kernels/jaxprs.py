"""Looks into jaxprs: their equations, and the sizes of their values."""

from collections.abc import Iterator
from typing import Any

import jax


def equations(jaxpr: Any) -> Iterator[Any]:
  """All equations of a jaxpr, nested ones included."""
  for eqn in jaxpr.eqns:
    yield eqn
    for value in jax.tree.leaves(eqn.params):
      body = getattr(value, 'jaxpr', value)
      if hasattr(body, 'eqns'):
        yield from equations(body)


def largest(jaxpr: Any) -> int:
  """The number of elements of its largest value."""
  return max((v.aval.size for eqn in equations(jaxpr) for v in eqn.outvars), default=0)
