"""Partitioning of quantised matmuls over a mesh: each device multiplies by the codes that it holds.

    outputs sharded             each device computes its own outputs (column parallel)
    inputs sharded              partial sums are all-reduced in float32 (row parallel)
    sharded on the rows' axes   codes and steps are all-gathered along the axes over which x's rows are sharded (FSDP): about 1
                                byte a weight for int8, 0.56 for 4 bits with float32 steps, 2 for bfloat16

In the backward pass inputs and outputs change places. Rows keep the sharding of x, all other dimensions that of the codes; few
rows, which are not sharded, therefore leave the codes where they are. A block of inputs is never split.

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
"""(dtype of the result, rows, codes, steps, *levels) to the result, on one device."""

HELD = ('c', 'k', 'l')                         # never sharded: inputs of a block, its bytes, levels


class Letters(NamedTuple):
  """A name for each dimension of a product. Dimensions of one name are sharded alike, those of HELD not at all."""

  operands: tuple[tuple[str, ...], ...]        # of rows, codes, steps and levels
  result: tuple[str, ...]

  @property
  def all(self) -> tuple[str, ...]:
    """All names, in the order of their first use."""
    return tuple(dict.fromkeys(name for names in (*self.operands, self.result) for name in names))

  @property
  def held(self) -> tuple[str, ...]:
    return tuple(name for name in self.all if name in HELD)

  @property
  def summed(self) -> tuple[str, ...]:
    """The dimensions that are summed over and may be sharded."""
    return tuple(name for name in self.all if name not in (*self.result, *HELD))


def letters(x: jax.Array, codes: jax.Array, levels: int, backward: bool) -> Letters:
  """The names for x[*M, N, C] times codes [N, K, *O], or for the gradient of x from g[*M, *O]; `levels` is 0 or 1 tables.

  4-bit codes may be sharded between blocks; int8 has one block of all inputs, which may be sharded anywhere.
  """
  outputs = tuple(f'o{i}' for i in range(codes.ndim - 2))
  rows = tuple(f'm{i}' for i in range(x.ndim - (len(outputs) if backward else 2)))
  inputs, bytes_ = (('c', 'i'), ('c', 'i')) if codes.dtype == jnp.int8 else (('i', 'c'), ('i', 'k'))
  ends = (outputs, inputs) if backward else (inputs, outputs)
  return Letters(((*rows, *ends[0]), (*bytes_, *outputs), (bytes_[0], *outputs), *(('l',),) * levels), (*rows, *ends[1]))


def spread(run: Run, backward: bool) -> Callable[..., jax.Array]:
  """`run`, partitioned over the current mesh; the result has the dtype of the rows."""
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
  """The mesh axes of each dimension: those of x for its rows; for the others those of the codes, less the rows' axes."""
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
