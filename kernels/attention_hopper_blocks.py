"""What the kernels of attention for Hopper are made of: warpgroups with roles, rings of shared memory, walks, arithmetic.

A program is some warpgroups of 128 threads that compute and one or two that copy. The copies fill the stages of a ring in
turn; a stage is filled again when all warpgroups that compute have given it back. A barrier counts those that arrive at it,
and who waits at it waits for each of its rounds once, in their order: so every block of a ring is taken and given once.

Letters: B rows, H query heads, K head size, T rows that stay with a warpgroup, C rows of a block that passes by.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plg

from kernels.attention_fused import LOG2E, Plan

WGMMA = plg.Layout.WGMMA
ROW, COLUMN = WGMMA.reduce(1), WGMMA.reduce(0)    # one value for each row or column of a product, where its registers are
EIGHT = 8                                         # rows of a tile in shared memory: lengths are padded to a multiple
# Of a thread that computes and of one that copies, by warpgroups that do.
REGISTERS = {(1, 1): (240, 24), (2, 1): (240, 24), (3, 1): (160, 32), (1, 2): (240, 24), (2, 2): (232, 24)}


class Tile(NamedTuple):
  """Rows that stay with a warpgroup, rows of a block that passes by, stages of the ring, warpgroups that compute."""

  t: int
  c: int
  stages: int = 4
  groups: int = 2

  @property
  def span(self) -> int:
    """Rows that stay with a program."""
    return self.t * self.groups


class Pair(NamedTuple):
  """Of the kernel for dq, and of that for dk and dv."""

  queries: Tile
  keys: Tile


class Tiles(NamedTuple):
  """Of the forward kernel, and of the backward pass: of its two kernels, or of the one that does it all."""

  forward: Tile
  backward: Pair | Tile


class Ring(NamedTuple):
  """Stages that blocks pass through in the order of their numbers; what belongs to a block passes beside it."""

  stages: Sequence[Any]                # shared memory [stages, C, K], then [stages, ...] of what belongs to it
  here: Any                            # barriers: all copies into a stage have landed
  free: Any                            # barriers: all warpgroups that compute have given it back

  @classmethod
  def of(cls, tile: Tile, size: int, dtype: jnp.dtype, *beside: jax.ShapeDtypeStruct) -> 'Ring':
    """What to allocate for it."""
    stages = [shared((tile.stages, tile.c, size), dtype), *(plg.SMEM((tile.stages, *x.shape), x.dtype) for x in beside)]
    return cls(stages, plg.Barrier(num_barriers=tile.stages, num_arrivals=1 + (len(beside) > 0)),
               plg.Barrier(num_barriers=tile.stages, num_arrivals=tile.groups))

  def slot(self, n: jax.Array) -> jax.Array:
    return lax.rem(n, self.stages[0].shape[0])

  def block(self, n: jax.Array) -> Any:
    """The block n, which was waited for."""
    return self.stages[0].at[self.slot(n)]

  def wait(self, n: jax.Array) -> None:
    """Until block n is there."""
    plg.barrier_wait(self.here.at[self.slot(n)])

  def take(self, n: jax.Array) -> Any:
    """The block n, once it is there."""
    self.wait(n)
    return self.block(n)

  def give(self, n: jax.Array) -> None:
    """The stage of block n back: this warpgroup has read it."""
    plg.barrier_arrive(self.free.at[self.slot(n)])

  def put(self, n: jax.Array, source: Any, beside: Any = None, which: int = 0) -> None:
    """Begins to copy block n into its stage, and what belongs to it into the ring that is `which` beside."""
    slot = self.slot(n)
    pl.when(n >= self.stages[0].shape[0])(lambda: plg.barrier_wait(self.free.at[slot]))
    plg.copy_gmem_to_smem(source, self.stages[0].at[slot], self.here.at[slot])
    if beside is not None:
      plg.copy_gmem_to_smem(beside, self.stages[which].at[slot], self.here.at[slot])

  def fill(self, walk: 'Walk', place: Callable[[jax.Array], Any], *sources: Any) -> None:
    """Copies of every block of the walk what each source has at its place, one after the other."""
    @pl.loop(walk.start, walk.stop)
    def _(j):
      for n, ref in enumerate(sources):
        self.put(len(sources) * (j - walk.start) + n, ref.at[place(j)])


class Walk(NamedTuple):
  """The blocks [start, stop) that pass by; those of [whole, past) need no mask."""

  start: jax.Array
  whole: jax.Array
  past: jax.Array
  stop: jax.Array

  @classmethod
  def of(cls, bounds: Any) -> 'Walk':
    """From i32[4] in memory."""
    return cls(*(bounds[n] for n in range(4)))

  def __call__(self, step: Callable[[bool, jax.Array, Any], Any], carry: Any) -> Any:
    """`step(masked, block, carry)` over all of them."""
    carry = lax.fori_loop(self.start, self.whole, partial(step, True), carry)
    carry = lax.fori_loop(self.whole, self.past, partial(step, False), carry)
    return lax.fori_loop(self.past, self.stop, partial(step, True), carry)

  def down(self) -> 'Walk':
    """The same blocks as they are counted from the last, 0, down."""
    return Walk(self.stop - self.stop, self.stop - self.past, self.stop - self.whole, self.stop - self.start)


def launch(body: Callable[..., None], tile: Tile, grid: dict[str, int], results: Sequence[jax.ShapeDtypeStruct],
           scratch: Sequence[Any], name: str, copies: int = 1) -> Callable[..., Sequence[jax.Array]]:
  """The kernel over a grid, whose last axis is launched first: of its operands to its results."""
  params = plg.CompilerParams(approx_math=True, reduction_scratch_bytes=0, lowering_semantics=plg.LoweringSemantics.Warpgroup)
  return plg.kernel(body, out_type=list(results), scratch_types=list(scratch), grid=tuple(grid.values()), kernel_name=name,
                    grid_names=tuple(grid), num_threads=tile.groups + copies, thread_name='group', compiler_params=params)


def roles(tile: Tile, compute: Callable[[jax.Array], None], *copies: Callable[[], None]) -> None:
  """`compute(group)` in the first warpgroups, and each of `copies` in one of the last, which leaves them its registers."""
  group = lax.axis_index('group')
  many, few = REGISTERS[tile.groups, len(copies)]

  @pl.when(group < tile.groups)
  def _():
    plg.set_max_registers(many, action='increase')
    compute(group)

  for n, copy in enumerate(copies, tile.groups):
    @pl.when(group == n)
    def _(copy=copy):
      plg.set_max_registers(few, action='decrease')
      copy()


def shared(shape: tuple[int, ...], dtype: jnp.dtype) -> Any:
  """Shared memory as copies and products want it: in tiles of 8 rows by 128 bytes, swizzled."""
  tile = EIGHT, 128 // jnp.dtype(dtype).itemsize
  return plg.SMEM(shape, dtype, transforms=(plg.TilingTransform(tile), plg.SwizzleTransform(128)))


def padded(x: jax.Array, axis: int, multiple: int) -> jax.Array:
  """`x` with zeros up to a multiple: the same array where it is one."""
  short = -x.shape[axis] % multiple
  return jnp.pad(x, [(0, short * (n == axis)) for n in range(x.ndim)]) if short else x


def by_heads(x_BLGRK: jax.Array) -> jax.Array:
  """[B, L, H, K], with rows up to a multiple of a tile's."""
  return padded(x_BLGRK.reshape(*x_BLGRK.shape[:2], -1, x_BLGRK.shape[-1]), 1, EIGHT)


def logits(plan: Plan, raw: jax.Array) -> tuple[jax.Array, float]:
  """As Plan.logits, with a hyperbolic tangent right to a part in a million: the chip's own is to one in two thousand."""
  if plan.softcap is None:
    return plan.logits(raw)
  return 1 - 2 / (1 + jnp.exp2(raw * (2 * LOG2E * plan.scale / plan.softcap))), plan.softcap * LOG2E


def across(x_T: jax.Array, shape: tuple[int, int]) -> jax.Array:
  """A value of each row in all of its columns."""
  return lax.broadcast_in_dim(x_T, shape, [0])


def down(x_C: jax.Array, shape: tuple[int, int]) -> jax.Array:
  """A value of each column in all of its rows."""
  return lax.broadcast_in_dim(x_C, shape, [1])


def count(shape: tuple[int, int], axis: int) -> jax.Array:
  """The numbers of its rows (0) or columns (1)."""
  return plg.broadcasted_iota(jnp.int32, shape, axis, layout=WGMMA)


def read(source: Any, layout: Any) -> jax.Array:
  """What memory holds, in registers as the layout has them."""
  index = [()] if jax.__version_info__ < (0, 11) else []
  return plg.load(source, *index, layout=layout, optimized=False)


def write(x_TK: jax.Array, through: Any, target: Any) -> None:
  """Begins to copy to memory, by way of shared memory that nothing reads any more; rows beyond the last are left out."""
  through[...] = x_TK.astype(through.dtype)
  plg.commit_smem()
  plg.copy_smem_to_gmem(through, target)
