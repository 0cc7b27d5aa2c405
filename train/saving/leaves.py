"""A state as named arrays, `{'params.embed': f32[V, D], ...}`, and what is said when two states are not alike.

A checkpoint holds arrays by name. Random keys are held as their bits; an array without elements is held by its
description alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from model.errors import CheckpointError

GENERATORS = ('threefry2x32', 'rbg', 'unsafe_rbg')
SHOWN = 5           # of the leaves that differ, so many are named


@dataclass(frozen=True)
class Leaf:
  """What is known of an array without its elements."""

  shape: tuple[int, ...]
  dtype: str                          # 'float32', 'bfloat16', 'key<fry>'

  def __str__(self) -> str:
    return f'{self.dtype}{list(self.shape)}'

  @property
  def stored(self) -> bool:
    """Whether there are elements to store."""
    return 0 not in self.shape


def named(tree: Any) -> dict[str, Any]:
  """The leaves by their path. Absent subtrees (None) have no leaves."""
  pairs = jax.tree_util.tree_leaves_with_path(tree)
  leaves = {jax.tree_util.keystr(path, simple=True, separator='.'): leaf for path, leaf in pairs}
  if len(leaves) != len(pairs):
    raise ValueError('two leaves of the state have one name: a name inside it holds a dot')
  return leaves


def describe(leaf: Any) -> Leaf:
  """The description of an array, of an abstract array, or of an array of random keys."""
  return Leaf(tuple(leaf.shape), str(leaf.dtype))


def bits(leaves: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """The arrays that are stored: keys as their bits, and nothing that has no elements."""
  return {name: jax.random.key_data(leaf) if is_key(leaf) else leaf for name, leaf in leaves.items() if leaf.size}


def abstract_bits(leaf: Any) -> jax.ShapeDtypeStruct:
  """What `bits` makes of a leaf like this one, with the sharding that it asks for (by default the first device)."""
  place = getattr(leaf, 'sharding', None) or SingleDeviceSharding(jax.devices()[0])
  if not is_key(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
  data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
  if isinstance(place, NamedSharding):
    place = NamedSharding(place.mesh, PartitionSpec(*place.spec), memory_kind=place.memory_kind)
  return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=place)


def from_bits(like: Any, data: jax.Array | None) -> jax.Array:
  """The leaf again: of the kind of `like`, from its stored bits (None for an array without elements)."""
  if data is None:
    return jax.device_put(jnp.zeros(like.shape, like.dtype), getattr(like, 'sharding', None))
  return jax.random.wrap_key_data(data, impl=_generator(like.dtype)) if is_key(like) else data


def is_key(leaf: Any) -> bool:
  """Whether it is an array of typed random keys."""
  return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _generator(dtype: Any) -> str:
  return next(name for name in GENERATORS
              if jax.eval_shape(partial(jax.random.key, 0, impl=name)).dtype == dtype)


def compare(wanted: Mapping[str, Leaf], stored: Mapping[str, Leaf], where: str, whole: bool = True) -> None:
  """Passes if everything wanted is stored with its shape and dtype and, if `whole`, nothing else is.

  Raises: CheckpointError `checkpoint.other-tree` that names leaves that are missing, left over, misshapen or mistyped.
  """
  both = [name for name in wanted if name in stored]
  shapes = [f'{n} is {list(stored[n].shape)} there and {list(wanted[n].shape)} here' for n in both
            if stored[n].shape != wanted[n].shape]
  dtypes = [f'{n} is {stored[n].dtype} there and {wanted[n].dtype} here' for n in both
            if stored[n].dtype != wanted[n].dtype]
  missing = [f'{n} ({wanted[n]})' for n in wanted if n not in stored]
  extra = [f'{n} ({stored[n]})' for n in stored if n not in wanted] if whole else []
  kinds = {'not in the checkpoint': missing, 'only in the checkpoint': extra, 'of another shape': shapes,
           'of another dtype': dtypes}
  told = [f'{len(names)} {kind}: {_shorten(names)}' for kind, names in kinds.items() if names]
  if told:
    raise CheckpointError('checkpoint.other-tree', where, f'it is not the state of this run: {". ".join(told)}',
                          'launch with the model and the optimizer that it was saved with, or in another folder')


def _shorten(names: list[str]) -> str:
  more = len(names) - SHOWN
  return ', '.join(names[:SHOWN]) + (f' and {more} more' if more > 0 else '')
