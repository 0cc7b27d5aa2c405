"""Products with few bits over a mesh: each device multiplies by the codes that it holds.

    outputs cut       each device makes its own
    inputs cut        each makes its part of the sum, and one all-reduce adds the parts, in float32
    as rows are cut   codes and steps are gathered along the axes that rows took: int8 1 byte a weight and a little, 4 bits
                      0.56 with float32 steps, where the matrix in bfloat16 would be 2

In a backward pass inputs and outputs change places. Rows lie where x lies and all else where the codes do, so that few
rows, cut over nothing, leave the codes where they are. A block of inputs is never cut inside.

Letters: M dimensions of rows, N blocks of inputs, C inputs of a block, K its bytes, O dimensions of outputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

Run = Callable[..., jax.Array]
"""(dtype of the result, rows, codes, steps, *levels) to it, on one device."""

HELD = ('c', 'k', 'l')                         # what shares a step, its bytes, levels


class Letters(NamedTuple):
  """A name for each dimension of a product; those with one name are cut alike, and those of HELD not at all."""

  operands: tuple[tuple[str, ...], ...]        # of rows, codes, steps and levels
  result: tuple[str, ...]

  @property
  def all(self) -> tuple[str, ...]:
    """In the order in which they come."""
    return tuple(dict.fromkeys(name for names in (*self.operands, self.result) for name in names))

  @property
  def held(self) -> tuple[str, ...]:
    return tuple(name for name in self.all if name in HELD)

  @property
  def summed(self) -> tuple[str, ...]:
    """What only operands have, and may be cut."""
    return tuple(name for name in self.all if name not in (*self.result, *HELD))


def letters(x: jax.Array, codes: jax.Array, levels: int, backward: bool) -> Letters:
  """Of x[*M, N, C] times codes [N, K, *O], or of its gradient from g[*M, *O].

  Blocks are cut apart; of int8, whose one block has all inputs, its inputs.
  """
  outputs = tuple(f'o{i}' for i in range(codes.ndim - 2))
  rows = tuple(f'm{i}' for i in range(x.ndim - (len(outputs) if backward else 2)))
  inputs, bytes_ = (('c', 'i'), ('c', 'i')) if codes.dtype == jnp.int8 else (('i', 'c'), ('i', 'k'))
  ends = (outputs, inputs) if backward else (inputs, outputs)
  return Letters(((*rows, *ends[0]), (*bytes_, *outputs), (bytes_[0], *outputs), *(('l',),) * levels), (*rows, *ends[1]))


def spread(run: Run, backward: bool) -> Callable[..., jax.Array]:
  """`run` of what each device holds, in the dtype of its rows."""
  def call(*arrays):
    dtype, names = arrays[0].dtype, letters(*arrays[:2], len(arrays) - 3, backward)
    part = custom_partitioning(lambda *each: run(dtype, *each))

    def partition(mesh, arguments, _):
      axes = placed(names, mesh.shape, arguments)
      lay = [NamedSharding(mesh, P(*map(axes.get, each))) for each in (*names.operands, names.result)]
      over = tuple(axis for name in names.summed for axis in axes[name] or ())

      def local(*each):
        return jax.lax.psum(run(jnp.float32, *each), over).astype(dtype) if over else run(dtype, *each)

      return mesh, local, lay[-1], tuple(lay[:-1])

    rule = ', '.join(map(' '.join, names.operands)) + ' -> ' + ' '.join(names.result)
    part.def_partition(partition, sharding_rule=rule, reduction_factors=names.summed, need_replication_factors=names.held)
    return part(*arrays)

  return call


def placed(names: Letters, sizes: Mapping[str, int], arguments: Sequence[Any]) -> dict[str, tuple[str, ...] | None]:
  """The axes of the mesh that cut each dimension: of rows those that do now, of others those of the codes that are left."""
  rows, codes = names.operands[:2]
  axes: dict[str, tuple[str, ...] | None] = {}
  taken: set[str] = set()
  for own, of, argument in ((set(rows) - {*codes}, rows, arguments[0]), ({*codes}, codes, arguments[1])):
    for name, size, now in zip(of, argument.shape, argument.sharding.spec):
      if name in own and name not in HELD:
        kept = tuple(axis for axis in ((now,) if isinstance(now, str) else now or ()) if axis not in taken)
        axes[name] = kept if kept and size % math.prod(sizes[axis] for axis in kept) == 0 else None
        taken.update(axes[name] or ())
  return axes
