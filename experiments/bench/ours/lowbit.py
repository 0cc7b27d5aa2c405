"""Products with weights in few bits beside those in bfloat16: `python -m experiments.bench.ours.lowbit [quick]`.

A JSON line for each shape, kind and form, as soon as it is measured: one matrix, then rows sorted by expert, then one for
each tile that a kernel might have on the largest shape. The fastest belong in kernels.lowbit_triton.TILES, and
kernels.lowbit.UNTRIED loses what beats the forms beside it. A call multiplies by several matrices in turn, more than a cache
holds. `gbps` counts what is stored of a matrix, and of experts' those that have rows. Without a GPU only `quick` runs,
interpreted, to see that it does.
"""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache, partial
from itertools import product
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.worker import pace
from kernels.grouped import grouped, grouped_made
from kernels.lowbit import FEW, lowbit
from kernels.lowbit_grouped import lowbit_grouped
from kernels.lowbit_triton import TILES, VECTOR
from kernels.lowbit_triton_blocks import Tile
from kernels.matmul import matmul
from model.levels import NF4, WHOLE, Doubled, Kind
from model.linear import worked_out
from model.quantize import dequantize, quantize

CACHE = 64e6                           # bytes: more than the second level of an H100 holds
PATIENCE = 40                          # seconds for programs before the first of them is measured all the same
KINDS: tuple[Kind, ...] = ('nf4', 'int8', 'int4')
EXPERTS, TAKEN = 8, 2                  # and how many of them a token takes, as in Mixtral (Jiang et al. 2024)
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
  rows: int                            # of experts: those of all, TAKEN of each token
  inputs: int
  outputs: int
  backward: bool = False
  tile: Tile | None = None             # None: that of TILES
  experts: int = 0                     # whose matrices the rows, sorted, are multiplied by; 0: one matrix

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
  yield from of_experts(quick)
  for kind, name in product(KINDS[:2], CANDIDATES):
    m = {'vector': rows[0], 'few': rows[1]}.get(name, rows[2])
    tiles = CANDIDATES[name][:2 if quick else None]
    yield from (Case(kind, 'kernel', m, *shapes[0], name == 'gradient', tile) for tile in tiles)


def of_experts(quick: bool) -> Iterator[Case]:
  """Decoding alone, decoding together, and training, by the matrices of one size of Mixtral's experts."""
  (inputs, outputs), tokens = ((128, 64), (1, 16, 64)) if quick else ((4096, 14_336), (1, 16, 1024))
  for count in tokens:
    for backward in (False, True)[:1 + (count > FEW)]:
      yield Case('bfloat16', 'matmul', TAKEN * count, inputs, outputs, backward, experts=EXPERTS)
      yield from (Case(kind, form, TAKEN * count, inputs, outputs, backward, experts=EXPERTS)
                  for kind, form in product(KINDS[:2], ('kernel', 'dequantised')))


@lru_cache
def drawn(kind: Kind | Literal['bfloat16'], inputs: int, outputs: int, experts: int) -> Any:
  """The compiled program that draws such a matrix, or one for each expert: op by op would take longer to compile."""
  def draw() -> Any:
    w = jax.random.normal(jax.random.key(0), (*(experts,) * bool(experts), inputs, outputs)) / inputs ** 0.5
    return w.astype(jnp.bfloat16) if kind == 'bfloat16' else quantize(w, kind, 1, stacked=bool(experts))

  return jax.jit(draw)


def matrices(case: Case) -> list[Any]:
  """So many that no cache holds them."""
  one = drawn(case.kind, case.inputs, case.outputs, case.experts)()
  count = 2 if jax.default_backend() != 'gpu' else int(min(16, max(2, -(-CACHE // stored(one)))))
  return [jax.tree.map(lambda a: a + jnp.zeros((), a.dtype), one) for _ in range(count)]


def stored(w: Any) -> int:
  """Bytes of a matrix, or of all experts'."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(w))


def read(case: Case, w: Any) -> float:
  """Bytes of what has rows."""
  return stored(w) * (float(np.mean(dealt(case) > 0)) if case.experts else 1.0)


def dealt(case: Case) -> np.ndarray:
  """i32[E]: how many rows each expert has where each token takes some at random."""
  random = np.random.default_rng(0)
  taken = [random.choice(case.experts, TAKEN, replace=False) for _ in range(case.rows // TAKEN)]
  return np.bincount(np.ravel(taken), minlength=case.experts).astype(np.int32)


def times(case: Case, x: jax.Array, w: Any) -> jax.Array:
  """The product in one form."""
  if case.experts:
    return times_experts(case, x, w)
  if case.form == 'matmul':
    return matmul(x, w, jnp.bfloat16)
  if case.form == 'dequantised':
    return worked_out(w, x, 1, 'bfloat16')
  tiles = TILES[2, 1 if w.kind == 'int8' else 2]
  tiles = tiles if case.tile is None else tiles._replace(**{case.name: case.tile})
  return lowbit(x, w.codes, *steps(w), tiles=tiles, interpret=jax.default_backend() != 'gpu')


def times_experts(case: Case, x: jax.Array, w: Any) -> jax.Array:
  """Sorted rows times their experts' matrices; how many each has, no compiler knows."""
  sizes = jax.lax.optimization_barrier(jnp.asarray(dealt(case)))
  if case.form == 'matmul':
    return grouped(x, w, sizes, 'bfloat16')
  if case.form == 'dequantised':
    return grouped_made(x, w, lambda w: dequantize(w, jnp.bfloat16), sizes, 'bfloat16')
  return lowbit_grouped(x, sizes, w.codes, *steps(w), dtype='bfloat16', interpret=jax.default_backend() != 'gpu')


def steps(w: Any) -> tuple[jax.Array, tuple[float, ...] | None]:
  """As the kernels take them, with the levels of codes that are not whole numbers."""
  scales = w.scales.value if isinstance(w.scales, Doubled) else w.scales
  return scales / WHOLE[w.kind], NF4 if w.kind == 'nf4' else None


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
  """Compiles side by side, measures one after another, and nothing while XLA may try out products on the card."""
  asked = list(cases(quick))
  with ThreadPoolExecutor(12) as pool:
    programs = [pool.submit(compiled, case) for case in asked]
    wait([made for case, made in zip(asked, programs) if case.tile is None], PATIENCE)
    for case, made in zip(asked, programs):
      line = {**case._asdict(), **({'tile': case.tile._asdict()} if case.tile else {})}
      try:
        call, (x, ws) = made.result(), arguments(case)
        seconds = pace(partial(call, x, ws), jax.block_until_ready, 0.05) / len(ws)
        line |= {'seconds': seconds, 'gbps': read(case, ws[0]) / seconds / 1e9, 'tflops': case.flops / seconds / 1e12}
      except Exception as error:       # one that does not fit the card leaves the others to be measured
        line['failed'] = str(error)[:200]
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  main('quick' in sys.argv[1:])
