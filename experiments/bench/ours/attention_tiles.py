"""The block sizes of our attention for NVIDIA GPUs, one by one, on packed rows: `python -m ... ours.attention_tiles [quick]`.

A JSON line for each kernel, head size and tile, as soon as it is measured; the fastest belong in
kernels.attention_triton.TILES. Without a GPU only `quick` runs, interpreted, to see that it does.
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
from kernels.attention_fused import Plan, delta
from kernels.attention_triton import KERNELS, Tile, Tiles, tiles_for

CANDIDATES: dict[int, list[Tile]] = {
  64: [Tile(*each) for each in product((64, 128), (32, 64, 128), (4, 8), (2, 3))],
  128: [Tile(*each) for each in product((32, 64, 128), (32, 64), (4, 8), (2, 3))],
  256: [Tile(*each) for each in product((32, 64, 128), (32, 64), (4, 8), (1, 2))],
}


class Case(NamedTuple):
  """One kernel with one tile."""

  sight: Sight
  kernel: str                          # a field of Tiles
  tile: Tile

  @property
  def plan(self) -> Plan:
    tiles = tiles_for(jnp.dtype('bfloat16'), self.sight.head_size)._replace(**{self.kernel: self.tile})
    ranges = packed_ranges(jnp.ones((1, 1), jnp.int32))
    return Plan(ranges.kind, scale_of(self.sight), None, tiles, interpret=jax.default_backend() != 'gpu')


def cases(quick: bool) -> Iterator[Case]:
  """A few hundred; one for each kernel where it is to be quick."""
  if quick:
    yield from (Case(Sight(64, 64, True, 64), kernel, Tile(32, 32)) for kernel in Tiles._fields)
    return
  for (size, tiles), kernel in product(CANDIDATES.items(), Tiles._fields):
    yield from (Case(Sight(size, 4096, True), kernel, tile) for tile in tiles)


def run(case: Case, segments: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, g: jax.Array) -> Any:
  """That kernel alone: of the backward pair, what is not asked for is not compiled."""
  ranges, grouped = packed_ranges(segments), q[:, :, :, None]
  operands = grouped, k, v, ranges.first_BL, ranges.last_BL
  if case.kernel == 'forward':
    return KERNELS.forward(case.plan, *operands)
  lse = jnp.zeros((q.shape[0], q.shape[2], 1, q.shape[1]), jnp.float32)
  dq, dk, dv = KERNELS.backward(case.plan, *operands, lse, delta(grouped, g[:, :, :, None]), g[:, :, :, None])
  return dq if case.kernel == 'queries' else (dk, dv)


def arguments(case: Case) -> list[jax.Array]:
  shape = case.sight.batch, case.sight.length, case.sight.heads, case.sight.head_size
  data = [jax.random.normal(key, shape, jnp.bfloat16) for key in jax.random.split(jax.random.key(0), 4)]
  return [jnp.asarray(case.sight.segments()), *data]


def main(quick: bool) -> None:
  """Compiles side by side, measures one after another."""
  asked = list(cases(quick))
  with ThreadPoolExecutor(8) as pool:
    programs = [pool.submit(lambda case: jax.jit(partial(run, case)).lower(*arguments(case)).compile(), case) for case in asked]
    for case, made in zip(asked, programs):
      line = {'kernel': case.kernel, 'head_size': case.sight.head_size, **case.tile._asdict()}
      try:
        call, data = made.result(), arguments(case)
        line['seconds'] = pace(partial(call, *data), jax.block_until_ready, 0.05)
      except Exception as error:       # one that does not fit the card leaves the others to be measured
        line['failed'] = str(error)[:200]
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  main('quick' in sys.argv[1:])
