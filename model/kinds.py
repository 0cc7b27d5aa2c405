"""The kind of each parameter, from its logical names: for weight decay by kind, Muon and muP."""

from typing import Any, Literal

import jax
from optax.contrib import MuonDimensionNumbers

from model.sharding import names

Kind = Literal['matrix', 'embedding', 'head', 'vector', 'adapter']

SIDES = ('embed', 'heads', 'head', 'mlp', 'routes')   # names of the input and output dimensions of matrices


def kinds(boxed: Any) -> Any:
  """A tree of Kinds shaped like the parameters, from `init`'s boxed tree or its `jax.eval_shape`."""
  return jax.tree.map(kind, names(boxed), is_leaf=lambda x: isinstance(x, tuple))


def muon_dimensions(boxed: Any) -> Any:
  """The input and output dimensions of each matrix; None for other kinds.

  Dimensions in neither count matrices that lie side by side: layers, experts, gate and up, and the slots of qkv. With
  as many key heads as heads the slots are one matrix each of q, k and v; with fewer, q is several, of one head a group.
  """
  return jax.tree.map(_dimensions, names(boxed), is_leaf=lambda x: isinstance(x, tuple))


def kind(axes: tuple[str | None, ...]) -> Kind:
  """The kind of a parameter with these logical names."""
  if not axes:
    raise ValueError('kinds are read off logical names: give the boxed tree of Model.init, not unboxed parameters')
  if 'rank' in axes:
    return 'adapter'
  if 'rows' in axes or 'positions' in axes:
    return 'embedding'
  if 'vocab' in axes:
    return 'head' if 'embed' in axes else 'vector'
  return 'matrix' if 'embed' in axes else 'vector'


def sides(axes: tuple[str | None, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """The input and the output dimensions of a matrix with these logical names."""
  at = axes.index('embed')
  others = tuple(i for i, name in enumerate(axes) if name in SIDES and i != at)
  return ((at,), others) if at < others[0] else (others, (at,))


def _dimensions(axes: tuple[str | None, ...]) -> MuonDimensionNumbers | None:
  return MuonDimensionNumbers(*sides(axes)) if kind(axes) == 'matrix' else None
