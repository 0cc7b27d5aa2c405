"""Products with weights in few bits beside those in bfloat16: `python -m experiments.bench.ours.lowbit [quick]`.

A JSON line for each shape, kind and form, as soon as it is measured, then one for each tile that a kernel might have on the
largest shape; the fastest belong in kernels.lowbit_triton.TILES, and kernels.lowbit.UNTRIED loses what beats the forms
beside it. A call multiplies by several matrices in turn, more than a cache holds. `gbps` counts what is stored of a matrix.
Without a GPU only `quick` runs, interpreted, to see that it does.
"""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from experiments.bench.worker import pace
from kernels.lowbit import FEW, lowbit
from kernels.lowbit_triton import TILES, VECTOR
from kernels.lowbit_triton_blocks import Tile
from kernels.matmul import matmul
from model.linear import worked_out
from model.quantize import NF4, WHOLE, Doubled, Kind, quantize

CACHE = 64e6                           # bytes: more than the second level of an H100 holds
KINDS: tuple[Kind, ...] = ('nf4', 'int8', 'int4')
CANDIDATES: dict[str, list[Tile]] = {
  'vector': [Tile(1, depth, outputs, 4, 2, programs) for depth, outputs, programs in product((32, 64), (64, 128), (264, 528))],
  'few': [Tile(16, depth, outputs, 4, stages, 264) for depth, outputs, stages in product((32, 64), (64, 128), (1, 3))],
  'many': [Tile(rows, 32, outputs, 8, stages) for (rows, outputs), stages in
           product(((128, 128), (128, 256), (256, 128)), (1, 3))],
  'gradient': [Tile(rows, depth, 64, 8, stages) for rows, depth, stages in product((128, 256), (32, 64), (1, 3))],
}


class Case(NamedTuple):
  """x[rows, inputs] times a matrix, or its gradient, of one kind and in one form."""

  kind: Kind | Literal['bfloat16']     # of the weights
  form: str                            # matmul, dequantised or kernel
  rows: int
  inputs: int
  outputs: int
  backward: bool = False
  tile: Tile | None = None             # None: that of TILES

  @property
  def name(self) -> str:
    """The field of Tiles that it runs by."""
    return 'gradient' if self.backward else 'vector' if self.rows <= VECTOR else 'few' if self.rows <= FEW else 'many'

  @property
  def flops(self) -> float:
    return 2.0 * self.rows * self.inputs * self.outputs


def cases(quick: bool) -> Iterator[Case]:
  """What a 1B model multiplies by, then tiles."""
  shapes, rows = ([(128, 64)], (1, 16, 64)) if quick else ([(2048, 8192), (2048, 2048)], (1, 16, 4096))
  for (inputs, outputs), m in product(shapes, rows):
    for backward in (False, True)[:1 + (m > FEW)]:
      yield Case('bfloat16', 'matmul', m, inputs, outputs, backward)
      yield from (Case(kind, form, m, inputs, outputs, backward)
                  for kind, form in product(KINDS, ('kernel', 'dequantised')))
  for kind, name in product(KINDS[:2], CANDIDATES):
    m = {'vector': rows[0], 'few': rows[1]}.get(name, rows[2])
    tiles = CANDIDATES[name][:2 if quick else None]
    yield from (Case(kind, 'kernel', m, *shapes[0], name == 'gradient', tile) for tile in tiles)


def matrices(case: Case) -> list[Any]:
  """So many that no cache holds them."""
  w = jax.random.normal(jax.random.key(0), (case.inputs, case.outputs)) / case.inputs ** 0.5
  one = w.astype(jnp.bfloat16) if case.kind == 'bfloat16' else quantize(w, case.kind, 1)
  count = 2 if jax.default_backend() != 'gpu' else int(min(16, max(2, -(-CACHE // stored(one)))))
  return [jax.tree.map(lambda a: a + jnp.zeros((), a.dtype), one) for _ in range(count)]


def stored(w: Any) -> int:
  """Bytes of a matrix."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(w))


def times(case: Case, x: jax.Array, w: Any) -> jax.Array:
  """The product in one form."""
  if case.form == 'matmul':
    return matmul(x, w, jnp.bfloat16)
  if case.form == 'dequantised':
    return worked_out(w, x, 1, 'bfloat16')
  tiles = TILES[2, 1 if w.kind == 'int8' else 2]
  tiles = tiles if case.tile is None else tiles._replace(**{case.name: case.tile})
  scales = w.scales.value if isinstance(w.scales, Doubled) else w.scales
  return lowbit(x, w.codes, scales / WHOLE[w.kind], NF4 if w.kind == 'nf4' else None, tiles=tiles,
                interpret=jax.default_backend() != 'gpu')


def run(case: Case, x: jax.Array, ws: list[Any]) -> list[jax.Array]:
  """The product with each matrix, or g times its transpose for g in place of x."""
  if not case.backward:
    return [times(case, x, w) for w in ws]
  like = jnp.zeros((case.rows, case.inputs), x.dtype)
  pulls = [jax.vjp(partial(times, case, w=w), like) for w in ws]
  return [pull(x.astype(y.dtype))[0] for y, pull in pulls]


def arguments(case: Case) -> tuple[jax.Array, list[Any]]:
  width = case.outputs if case.backward else case.inputs
  return jax.random.normal(jax.random.key(1), (case.rows, width), jnp.bfloat16), matrices(case)


def compiled(case: Case) -> Any:
  return jax.jit(partial(run, case)).lower(*jax.eval_shape(lambda: arguments(case))).compile()


def main(quick: bool) -> None:
  """Compiles side by side, measures one after another."""
  asked = list(cases(quick))
  with ThreadPoolExecutor(12) as pool:
    for case, made in zip(asked, [pool.submit(compiled, case) for case in asked]):
      line = {**case._asdict(), **({'tile': case.tile._asdict()} if case.tile else {})}
      try:
        call, (x, ws) = made.result(), arguments(case)
        seconds = pace(partial(call, x, ws), jax.block_until_ready, 0.05) / len(ws)
        line |= {'seconds': seconds, 'gbps': stored(ws[0]) / seconds / 1e9, 'tflops': case.flops / seconds / 1e12}
      except Exception as error:       # one that does not fit the card leaves the others to be measured
        line['failed'] = str(error)[:200]
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  main('quick' in sys.argv[1:])
