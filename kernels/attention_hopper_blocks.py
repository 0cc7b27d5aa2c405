"""Building blocks of the Hopper attention kernels: warp specialisation, ring buffers in shared memory, block loops, layouts.

A program (thread block) has consumer warpgroups of 128 threads, which compute, and one or two producer warpgroups, which copy.
Producers fill the stages of a ring buffer in turn; a stage is filled again once all consumers have released it. Barriers count
arrivals, and a waiter must wait for every phase once, in order: so each consumer takes and releases every block exactly once.

Letters: B rows, H query heads, K head size, T resident rows of a warpgroup, C rows of a streamed block.
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
ROW, COLUMN = WGMMA.reduce(1), WGMMA.reduce(0)    # layouts of one value per row or per column of a WGMMA accumulator
EIGHT = 8                                         # rows of a swizzle tile in shared memory: lengths are padded to a multiple
# Registers of a consumer's and a producer's thread, by the numbers of consumer and producer warpgroups.
REGISTERS = {(1, 1): (240, 24), (2, 1): (240, 24), (3, 1): (160, 32), (1, 2): (240, 24), (2, 2): (232, 24)}


class Tile(NamedTuple):
  """T, C, stages of the ring buffer, consumer warpgroups."""

  t: int
  c: int
  stages: int = 4
  groups: int = 2

  @property
  def span(self) -> int:
    """Resident rows of a program."""
    return self.t * self.groups


class Pair(NamedTuple):
  """Tiles of the kernel for dq, and of the kernel for dk and dv."""

  queries: Tile
  keys: Tile


class Tiles(NamedTuple):
  """Tiles of the forward kernel, and of the backward pass: a Pair for two kernels, a Tile for one."""

  forward: Tile
  backward: Pair | Tile


class Ring(NamedTuple):
  """A ring buffer in shared memory: block n is in stage n mod stages, and its side arrays (lse, delta, ranges) beside it."""

  stages: Sequence[Any]                # shared memory: [stages, C, K], then the side arrays [stages, ...]
  here: Any                            # barriers, one a stage: all copies into it have arrived
  free: Any                            # barriers, one a stage: all consumers have released it

  @classmethod
  def of(cls, tile: Tile, size: int, dtype: jnp.dtype, *beside: jax.ShapeDtypeStruct) -> 'Ring':
    """The scratch types of a ring."""
    stages = [shared((tile.stages, tile.c, size), dtype), *(plg.SMEM((tile.stages, *x.shape), x.dtype) for x in beside)]
    return cls(stages, plg.Barrier(num_barriers=tile.stages, num_arrivals=1 + (len(beside) > 0)),
               plg.Barrier(num_barriers=tile.stages, num_arrivals=tile.groups))

  def slot(self, n: jax.Array) -> jax.Array:
    return lax.rem(n, self.stages[0].shape[0])

  def block(self, n: jax.Array) -> Any:
    """Block n, after `wait`."""
    return self.stages[0].at[self.slot(n)]

  def wait(self, n: jax.Array) -> None:
    """Waits until block n has been copied."""
    plg.barrier_wait(self.here.at[self.slot(n)])

  def take(self, n: jax.Array) -> Any:
    """Block n, after waiting for it."""
    self.wait(n)
    return self.block(n)

  def give(self, n: jax.Array) -> None:
    """Releases the stage of block n for this consumer."""
    plg.barrier_arrive(self.free.at[self.slot(n)])

  def put(self, n: jax.Array, source: Any, beside: Any = None, which: int = 0) -> None:
    """Starts the copy of block n into its stage, once that is free, and of `beside` into side array number `which`."""
    slot = self.slot(n)
    pl.when(n >= self.stages[0].shape[0])(lambda: plg.barrier_wait(self.free.at[slot]))
    plg.copy_gmem_to_smem(source, self.stages[0].at[slot], self.here.at[slot])
    if beside is not None:
      plg.copy_gmem_to_smem(beside, self.stages[which].at[slot], self.here.at[slot])

  def fill(self, walk: 'Walk', place: Callable[[jax.Array], Any], *sources: Any) -> None:
    """Copies every block j of the walk from each source in turn, indexed by `place(j)`."""
    @pl.loop(walk.start, walk.stop)
    def _(j):
      for n, ref in enumerate(sources):
        self.put(len(sources) * (j - walk.start) + n, ref.at[place(j)])


class Walk(NamedTuple):
  """The loop over the streamed blocks [start, stop); those of [whole, past) need no mask (kernels.attention_bounds)."""

  start: jax.Array
  whole: jax.Array
  past: jax.Array
  stop: jax.Array

  @classmethod
  def of(cls, bounds: Any) -> 'Walk':
    """From i32[4] in global memory."""
    return cls(*(bounds[n] for n in range(4)))

  def __call__(self, step: Callable[[bool, jax.Array, Any], Any], carry: Any) -> Any:
    """`step(masked, block, carry)` over all of them."""
    carry = lax.fori_loop(self.start, self.whole, partial(step, True), carry)
    carry = lax.fori_loop(self.whole, self.past, partial(step, False), carry)
    return lax.fori_loop(self.past, self.stop, partial(step, True), carry)

  def down(self) -> 'Walk':
    """The same blocks in reverse: counted from the last one, which is 0."""
    return Walk(self.stop - self.stop, self.stop - self.past, self.stop - self.whole, self.stop - self.start)


def launch(body: Callable[..., None], tile: Tile, grid: dict[str, int], results: Sequence[jax.ShapeDtypeStruct],
           scratch: Sequence[Any], name: str, copies: int = 1) -> Callable[..., Sequence[jax.Array]]:
  """The kernel over a grid, as a function of its operands to its results. Programs start in order, the last axis fastest."""
  params = plg.CompilerParams(approx_math=True, reduction_scratch_bytes=0, lowering_semantics=plg.LoweringSemantics.Warpgroup)
  return plg.kernel(body, out_type=list(results), scratch_types=list(scratch), grid=tuple(grid.values()), kernel_name=name,
                    grid_names=tuple(grid), num_threads=tile.groups + copies, thread_name='group', compiler_params=params)


def roles(tile: Tile, compute: Callable[[jax.Array], None], *copies: Callable[[], None]) -> None:
  """Runs `compute(group)` in the consumers and each of `copies` in a producer, which hands them most of its registers."""
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
  """A type of shared memory for TMA copies and WGMMA: tiles of 8 rows by 128 bytes, swizzled."""
  tile = EIGHT, 128 // jnp.dtype(dtype).itemsize
  return plg.SMEM(shape, dtype, transforms=(plg.TilingTransform(tile), plg.SwizzleTransform(128)))


def padded(x: jax.Array, axis: int, multiple: int) -> jax.Array:
  """`x`, zero-padded along `axis` to a multiple; `x` itself where it is one."""
  short = -x.shape[axis] % multiple
  return jnp.pad(x, [(0, short * (n == axis)) for n in range(x.ndim)]) if short else x


def by_heads(x_BLGRK: jax.Array) -> jax.Array:
  """[B, L, H, K], with L padded to a multiple of EIGHT."""
  return padded(x_BLGRK.reshape(*x_BLGRK.shape[:2], -1, x_BLGRK.shape[-1]), 1, EIGHT)


def logits(plan: Plan, raw: jax.Array) -> tuple[jax.Array, float]:
  """As Plan.logits, with tanh to a relative error of 1e-6: the hardware's own has 5e-4."""
  if plan.softcap is None:
    return plan.logits(raw)
  return 1 - 2 / (1 + jnp.exp2(raw * (2 * LOG2E * plan.scale / plan.softcap))), plan.softcap * LOG2E


def across(x_T: jax.Array, shape: tuple[int, int]) -> jax.Array:
  """One value per row, broadcast over the columns."""
  return lax.broadcast_in_dim(x_T, shape, [0])


def down(x_C: jax.Array, shape: tuple[int, int]) -> jax.Array:
  """One value per column, broadcast over the rows."""
  return lax.broadcast_in_dim(x_C, shape, [1])


def count(shape: tuple[int, int], axis: int) -> jax.Array:
  """i32 indices along `axis`: of rows (0) or columns (1)."""
  return plg.broadcasted_iota(jnp.int32, shape, axis, layout=WGMMA)


def read(source: Any, layout: Any) -> jax.Array:
  """Memory loaded into registers in this layout."""
  index = [()] if jax.__version_info__ < (0, 11) else []
  return plg.load(source, *index, layout=layout, optimized=False)


def write(x_TK: jax.Array, through: Any, target: Any) -> None:
  """Starts a copy to global memory by way of `through`, shared memory that is free; rows beyond the end are not written."""
  through[...] = x_TK.astype(through.dtype)
  plg.commit_smem()
  plg.copy_smem_to_gmem(through, target)
