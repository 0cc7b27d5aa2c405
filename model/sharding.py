"""Where arrays lie: a mesh of four axes, one table from logical names to mesh axes, and `pin` for activations.

    data    copies of the model, each with its rows of the batch
    fsdp    also rows of the batch; and the parameters are cut along it, gathered when used
    seq     positions of a row
    tensor  heads, hidden units and vocabulary

Axes are Auto: the compiler completes what pins and parameters leave open. Put `with jax.set_mesh(mesh):` around a run.
"""

import logging
import math
from dataclasses import astuple, dataclass
from typing import Any

import jax
from flax.linen import LogicallyPartitioned
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kernels.zigzag import Order, rows_of
from model.errors import ConfigError

AXES = ('data', 'fsdp', 'seq', 'tensor')
BATCH_AXES = ('data', 'fsdp')

RULES: dict[str, tuple[str, ...]] = {
  # activations
  'batch': BATCH_AXES,
  'length': ('seq',),
  # parameters, and what they make
  'layers': (),
  'width': (),                      # D of vectors
  'embed': ('fsdp',),               # D of matrices
  'heads': ('tensor',),             # H, or G with its slots (R query heads, a key, a value)
  'slots': (),
  'head': (),                       # K
  'gates': (),                      # gate and up
  'mlp': ('tensor',),               # F
  'experts': (),
  'routes': (),                     # the router's outputs
  'rank': (),                       # of an adapter
  'vocab': ('tensor',),             # V of the head
  'rows': ('fsdp', 'tensor'),       # V of the embedding table: cut along D as well, a lookup would gather all of it
  'positions': (),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeshShape:
  """How many devices lie along each axis; -1 (at most once) takes those that are left."""

  data: int = -1
  fsdp: int = 1
  seq: int = 1
  tensor: int = 1

  def __post_init__(self):
    sizes = astuple(self)
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
      raise ConfigError('mesh.bad-shape', f'mesh {self}', 'sizes are at least 1, and one of them may be -1 (the rest)',
                        'use for example MeshShape(data=-1, fsdp=4)')

  def build(self, devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of all the devices.

    Raises: ConfigError if the sizes do not multiply to their number.
    """
    devices = jax.devices() if devices is None else devices
    sizes = astuple(self)
    fixed = math.prod(size for size in sizes if size != -1)
    rest = len(devices) // fixed
    sizes = tuple(rest if size == -1 else size for size in sizes)
    if math.prod(sizes) != len(devices):
      wanted = f'a multiple of {fixed}' if -1 in astuple(self) else str(fixed)
      raise ConfigError('mesh.device-count', f'{self} needs {wanted} devices; there are {len(devices)}',
                        'the sizes of the mesh must multiply to the number of devices',
                        f'choose sizes whose product is {len(devices)}, or run on other devices')
    return jax.make_mesh(sizes, AXES, devices=devices, axis_types=(AxisType.Auto,) * len(AXES))

  def fitted(self, devices: list[jax.Device]) -> 'MeshShape':
    """This one where it fits so many devices, else one that cuts the parameters over them all."""
    try:
      self.build(devices)
      return self
    except ConfigError:
      return MeshShape(data=1, fsdp=-1)


def spec(names: tuple[str | None, ...], shape: tuple[int, ...], sizes: dict[str, int]) -> PartitionSpec:
  """The mesh axes of each dimension, less those along which it does not divide: there it stays whole."""
  parts = []
  for name, size in zip(names, shape, strict=True):
    kept: tuple[str, ...] = ()
    for axis in RULES[name] if name else ():
      if sizes.get(axis, 1) > 1 and size % math.prod(sizes[a] for a in (*kept, axis)) == 0:
        kept += (axis,)
    parts.append(kept[0] if len(kept) == 1 else kept or None)
  return PartitionSpec(*parts)


def pin(x: jax.Array, *names: str | None) -> jax.Array:
  """x, laid on the current mesh as its logical names say; None: whole.

  Without a mesh (`jax.set_mesh`) it does nothing, so that a model runs on one device as it is; inside shard_map it
  leaves the manual axes alone.
  """
  free = _free()
  return jax.lax.with_sharding_constraint(x, spec(names, x.shape, free)) if free else x


def laid(shape: tuple[int, ...], *names: str | None) -> PartitionSpec:
  """Where `pin` would lay an array of this shape: all of it whole without a mesh, and along axes that are manual."""
  return spec(names, shape, _free())


def dealt(x_BL: jax.Array, order: Order) -> jax.Array:
  """Numbers for each position, whole with every device, cut over positions in this order: each device takes its own."""
  where = laid(x_BL.shape, 'batch', 'length')
  if where[1] is None:
    return x_BL
  return jax.shard_map(lambda x: rows_of(order, jax.lax.axis_index(where[1]), x.shape[1] // order.n, x),
                       in_specs=PartitionSpec(where[0]), out_specs=where)(x_BL)


def reordered(x_BLD: jax.Array, before: Order, after: Order) -> jax.Array:
  """x with its positions, cut over devices, in another order than before; where it is the same, x as it is."""
  if before == after:
    return x_BLD
  where = laid(x_BLD.shape, 'batch', 'length', None)
  return jax.shard_map(lambda x: after.there(before.back(x, where[1]), where[1]), in_specs=where, out_specs=where)(x_BLD)


def apart(*arrays_BL: jax.Array) -> tuple[tuple[jax.Array, ...], int]:
  """Arrays [B, L, ...] as [N B, L / N, ...], and over how many devices their rows are cut.

  A row whose positions are cut over N devices becomes N rows, each whole where it lies: what is done to every position by
  itself, tile by tile, is then done where the position is. Nothing moves.
  """
  batch, length = arrays_BL[0].shape[:2]
  where, n = laid((batch, length), 'batch', 'length'), parts('length', length)
  if n == 1:
    return arrays_BL, parts('batch', batch)
  axes = (*_axes(where[1]), *_axes(where[0]))

  def cut(x: jax.Array) -> jax.Array:
    x = x.reshape(batch, n, length // n, *x.shape[2:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(x.reshape(n * batch, length // n, *x.shape[3:]), PartitionSpec(axes))

  return tuple(map(cut, arrays_BL)), n * parts('batch', batch)


def joined(x: jax.Array, batch: int) -> jax.Array:
  """Rows [N B, L / N] that `apart` made, as [B, L] again."""
  return pin(x.reshape(-1, batch, x.shape[1]).swapaxes(0, 1).reshape(batch, -1), 'batch', 'length')


def _free() -> dict[str, int]:
  """The axes of the current mesh that the compiler lays arrays along, and their sizes."""
  mesh = jax.sharding.get_abstract_mesh()
  return {a: mesh.shape[a] for a, kind in zip(mesh.axis_names, mesh.axis_types) if kind == AxisType.Auto}


def parts(name: str, size: int) -> int:
  """Over how many devices of the current mesh `pin` cuts a dimension of that logical name and size."""
  free = _free()
  [where] = spec((name,), (size,), free)
  return math.prod(free[axis] for axis in _axes(where))


def _axes(where: str | tuple[str, ...] | None) -> tuple[str, ...]:
  """The mesh axes that one entry of a PartitionSpec names."""
  return (where,) if isinstance(where, str) else where or ()


def is_cut(axis: str) -> bool:
  """Whether the current mesh has several devices along the axis."""
  return jax.sharding.get_abstract_mesh().shape.get(axis, 1) > 1


def is_box(x: Any) -> bool:
  """Whether x is a parameter with logical names."""
  return isinstance(x, LogicallyPartitioned)


def unbox(tree: Any) -> Any:
  """The tree without the logical names."""
  return jax.tree.map(lambda x: x.value if is_box(x) else x, tree, is_leaf=is_box)


def names(boxed: Any) -> Any:
  """The tree with each box replaced by its tuple of logical names; () for what has none."""
  return jax.tree.map(lambda x: tuple(x.names) if is_box(x) else (), boxed, is_leaf=is_box)


def shardings(boxed_abstract: Any, mesh: Mesh) -> Any:
  """A NamedSharding for each leaf of a tree such as `jax.eval_shape(init, key)`; leaves without names are replicated.

  A dimension that does not divide into its mesh axes stays whole on them, and a warning says so.
  """
  sizes = dict(mesh.shape)

  def place(path, leaf):
    if not is_box(leaf):
      return NamedSharding(mesh, PartitionSpec())
    for name, size in zip(leaf.names, leaf.value.shape, strict=True):
      parts = math.prod(sizes.get(axis, 1) for axis in (RULES[name] if name else ()))
      if size % parts:
        log.warning('%s: %s = %d does not divide into %d devices and stays whole on some; use %d',
                    jax.tree_util.keystr(path), name, size, parts, -(-size // parts) * parts)
    return NamedSharding(mesh, spec(leaf.names, leaf.value.shape, sizes))

  return jax.tree_util.tree_map_with_path(place, boxed_abstract, is_leaf=is_box)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Where every leaf of a batch lies: rows over 'data' and 'fsdp', all else whole."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))
