"""Runs the Hopper kernels on the CPU, in threads with real barriers: `python -m tests.kernels.hopper_interpret CASE...`.

Pallas' interpreter, and what tests.kernels.hopper_interpreter adds to it, finds races between copies and reads, waits for ever
where a barrier is wrong, and does products at once: that a stage is given back too early for one under way is not seen. Run
as a process of its own with NPROC=24: a warpgroup that waits holds a thread of XLA's pool.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams, force_gpu_interpret_mode

from kernels import attention_hopper
from kernels.attention_bounds import within
from kernels.attention_fused import Plan, delta
from kernels.attention_hopper_blocks import Pair, Tile, Tiles
from kernels.ranges import Kind, Ranges, causal_ranges
from tests.kernels.attention_table import WIDE, Case, close, operands, packed_ranges, truth
from tests.kernels.hopper_interpreter import extended
from tests.kernels.test_attention_fused import shorter

ROWS = 200
CUT, HASTY = 'cut', 'hasty'            # instead of a case: those that follow walk a block too few, or wait for no turn
DOCUMENTS = jnp.asarray(np.arange(ROWS) // 37 + 1)[None].repeat(2, 0)
SCATTERED = np.sort(np.random.default_rng(6).integers(-3, ROWS + 3, (2, 2, ROWS)), axis=0)
SCATTERED[:, 0, 64:192] = 5
RUNS: dict[str, tuple[Case, Tile]] = {     # blocks enough that every stage is filled again
  'packed': (Case(packed_ranges(DOCUMENTS), keys=ROWS, heads=2, key_heads=1, head_size=64, scale=0.125), Tile(64, 64, 2)),
  'scattered': (Case(Ranges(*jnp.asarray(SCATTERED, jnp.int32), Kind()), keys=ROWS, heads=1, key_heads=1, head_size=64,
                     scale=0.125, softcap=2.0), Tile(64, 64, 5, 3)),
  'wide': (WIDE['heads of 256, prefix of documents'], Tile(64, 64, 3)),
}
ONE: dict[str, tuple[Case, Tile]] = {      # by the fused backward pass, in two or four blocks of keys
  'one packed': (RUNS['packed'][0], Tile(64, 64, 3, 1)),
  'one causal': (Case(causal_ranges(2, ROWS), keys=ROWS, heads=1, key_heads=1, head_size=64, scale=0.125), Tile(64, 64, 3, 1)),
  'one scattered': (RUNS['scattered'][0], Tile(64, 128, 3)),
  'one wide': (Case(causal_ranges(2, ROWS), keys=ROWS, heads=1, key_heads=1, head_size=128, scale=0.09), Tile(64, 64, 3)),
}


def run(name: str, turns: bool = True) -> None:
  """Fails unless result and gradients are close to those in float64, and there is no race."""
  case, tile = (RUNS | ONE)[name]
  q, k, v, g = operands(case, 'bfloat16')
  plan = Plan(Kind(), case.scale, case.softcap, Tiles(tile, tile if name in ONE else Pair(tile, tile)), False)
  grouped = (*q.shape[:2], k.shape[2], -1, q.shape[-1])
  arrays = q.reshape(grouped), k, v, *within(case.ranges.first_BL, case.ranges.last_BL, k.shape[1])
  with extended(turns), force_gpu_interpret_mode(InterpretGPUParams(detect_races=True)):
    out, lse = jax.jit(functools.partial(attention_hopper.forward, plan))(*arrays)
    rest = lse, delta(out, g.reshape(grouped)), g.reshape(grouped)
    dq, dk, dv = jax.jit(functools.partial(attention_hopper.backward, plan))(*arrays, *rest)
    results = out.reshape(q.shape), dq.reshape(q.shape), dk, dv
  for value, expected in zip(results, truth(case, q, k, v, g)):
    close(value, expected, 1e-2)
  assert not gpu_callbacks.get_races().races_found, 'there are races'


if __name__ == '__main__':
  for asked in sys.argv[1:]:
    if asked == CUT:
      attention_hopper.key_bounds = shorter(attention_hopper.key_bounds)
    elif asked != HASTY:
      run(asked, HASTY not in sys.argv)
