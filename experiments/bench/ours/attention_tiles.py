"""The block sizes of our attention for NVIDIA GPUs, one by one: `python -m ... ours.attention_tiles [triton|hopper] [quick]`.

A JSON line for each kernel, head size and tile, as soon as it is measured; the fastest belong in the form's table of tiles
(kernels.attention_triton, kernels.attention_hopper). Triton's are measured on packed rows; those for Hopper on long causal
ones, where tiles matter most. Without a GPU only `quick` runs, of Triton's and interpreted, to see that it does.
"""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.bench.ours.attention import scale_of
from experiments.bench.sights import Sight
from experiments.bench.worker import pace
from kernels.attention import packed_ranges
from kernels.attention_fused import Kernels, Plan, delta
from kernels.attention_triton import KERNELS, Tile, Tiles, tiles_for

CANDIDATES: dict[int, list[Tile]] = {
  64: [Tile(*each) for each in product((64, 128), (32, 64, 128), (4, 8), (2, 3))],
  128: [Tile(*each) for each in product((32, 64, 128), (32, 64), (4, 8), (2, 3))],
  256: [Tile(*each) for each in product((32, 64, 128), (32, 64), (4, 8), (1, 2))],
}
# Rows that stay, rows that pass, stages, warpgroups. Compiled ahead of time, all without a warning and few with a spill:
# wider ones run out of registers or of shared memory. `one` does what `queries` and `keys` do; it spills a few registers.
HOPPER: dict[tuple[str, int], list[tuple[int, ...]]] = {
  ('forward', 64): [(64, 128, 6), (64, 256, 4), (64, 128, 4, 3)],
  ('forward', 128): [(64, 128, 4), (64, 128, 5), (64, 64, 8)],
  ('forward', 256): [(64, 64, 4), (64, 64, 5)],
  ('queries', 64): [(64, 128, 6), (64, 64, 8), (64, 64, 8, 3)],
  ('queries', 128): [(64, 64, 6), (64, 64, 3)],
  ('queries', 256): [(64, 64, 3)],
  ('keys', 64): [(64, 128, 4), (64, 64, 8), (64, 64, 6, 3)],
  ('keys', 128): [(64, 64, 4), (64, 64, 8)],
  ('keys', 256): [(64, 64, 4)],
  ('one', 64): [(64, 128, 4), (64, 128, 3)],
  ('one', 128): [(64, 64, 5), (64, 64, 4)],
}


class Case(NamedTuple):
  """One kernel with one tile."""

  sight: Sight
  kernel: str                          # a field of Triton's Tiles; of Hopper's, forward, a field of its Pair, or one
  tile: Any
  form: str = 'triton'

  @property
  def kernels(self) -> Kernels:
    if self.form == 'triton':
      return KERNELS
    from kernels import attention_hopper
    return attention_hopper.KERNELS

  @property
  def plan(self) -> Plan:
    ranges = packed_ranges(jnp.ones((1, 1), jnp.int32))
    interpret = self.form == 'triton' and jax.default_backend() != 'gpu'
    return Plan(ranges.kind, scale_of(self.sight), None, self._tiles(), interpret)

  def _tiles(self) -> Any:
    """The form's own, with this one in its place."""
    if self.form == 'triton':
      return tiles_for(jnp.dtype('bfloat16'), self.sight.head_size)._replace(**{self.kernel: self.tile})
    from kernels import attention_hopper, attention_hopper_blocks
    tiles = attention_hopper.tiles_for(self.sight.head_size)
    if self.kernel == 'forward':
      return tiles._replace(forward=self.tile)
    pair = attention_hopper_blocks.Pair(self.tile, self.tile)      # of which only the kernel that is asked for is compiled
    return tiles._replace(backward=self.tile if self.kernel == 'one' else pair)


def cases(form: str, quick: bool) -> Iterator[Case]:
  """A few hundred, or twenty; one for each kernel where it is to be quick."""
  if form == 'hopper':
    yield from hopper_cases(quick)
  elif quick:
    yield from (Case(Sight(64, 64, True, 64), kernel, Tile(32, 32)) for kernel in Tiles._fields)
  else:
    for (size, tiles), kernel in product(CANDIDATES.items(), Tiles._fields):
      yield from (Case(Sight(size, 4096, True), kernel, tile) for tile in tiles)


def hopper_cases(quick: bool) -> Iterator[Case]:
  """Of the kernels that only a Hopper runs."""
  from kernels.attention_hopper_blocks import Tile
  for (kernel, size), tiles in HOPPER.items():
    yield from (Case(Sight(size, 16_384, False), kernel, Tile(*tile), 'hopper') for tile in (tiles[:1] if quick else tiles))


def run(case: Case, segments: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, g: jax.Array) -> Any:
  """That kernel alone: of a backward pair, what is not asked for is not compiled."""
  ranges, grouped = packed_ranges(segments), q[:, :, :, None]
  operands = grouped, k, v, ranges.first_BL, ranges.last_BL
  if case.kernel == 'forward':
    return case.kernels.forward(case.plan, *operands)
  lse = jnp.zeros((q.shape[0], q.shape[2], 1, q.shape[1]), jnp.float32)
  dq, dk, dv = case.kernels.backward(case.plan, *operands, lse, delta(grouped, g[:, :, :, None]), g[:, :, :, None])
  return {'queries': dq, 'keys': (dk, dv), 'one': (dq, dk, dv)}[case.kernel]


def arguments(case: Case) -> list[jax.Array]:
  shape = case.sight.batch, case.sight.length, case.sight.heads, case.sight.head_size
  data = [jax.random.normal(key, shape, jnp.bfloat16) for key in jax.random.split(jax.random.key(0), 4)]
  return [jnp.asarray(case.sight.segments()), *data]


def main(form: str, quick: bool) -> None:
  """Compiles side by side, measures one after another."""
  asked = list(cases(form, quick))
  with ThreadPoolExecutor(8) as pool:
    programs = [pool.submit(lambda case: jax.jit(partial(run, case)).lower(*arguments(case)).compile(), case) for case in asked]
    for case, made in zip(asked, programs):
      line = {'form': case.form, 'kernel': case.kernel, 'head_size': case.sight.head_size, **case.tile._asdict()}
      try:
        call, data = made.result(), arguments(case)
        line['seconds'] = pace(partial(call, *data), jax.block_until_ready, 0.05)
      except Exception as error:       # one that does not fit the card leaves the others to be measured
        line['failed'] = str(error)[:200]
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  main('hopper' if 'hopper' in sys.argv[1:] else 'triton', 'quick' in sys.argv[1:])
