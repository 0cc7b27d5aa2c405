"""The kernels for Hopper on the CPU, in threads that wait at real barriers: `python -m tests.kernels.hopper_interpret CASE...`.

Pallas' own interpreter (jax 0.12.0.1) knows all that they do but two things, which are added here: products of registers with
shared memory, and sums that begin with a value. It finds races between copies and reads, waits for ever where a barrier is
wrong, and does products at once: that a stage is given back too early for one under way is not seen. Run as a process of its
own with NPROC=16: a warpgroup that waits holds a thread of XLA's pool.
"""

import functools
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import callback, state
from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks, jaxpr_interpret
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams, force_gpu_interpret_mode
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plg

from kernels import attention_hopper
from kernels.attention_bounds import within
from kernels.attention_fused import Plan, delta
from kernels.attention_hopper_blocks import Tile, Tiles
from kernels.ranges import Kind, Ranges
from tests.kernels.attention_table import WIDE, Case, close, operands, packed_ranges, truth
from tests.kernels.test_attention_fused import shorter

ACC, ROWS = plg.ACC, 200
CUT = 'cut'                            # instead of a case: those that follow walk a block too few, and must fail
DOCUMENTS = jnp.asarray(np.arange(ROWS) // 37 + 1)[None].repeat(2, 0)
SCATTERED = np.sort(np.random.default_rng(6).integers(-3, ROWS + 3, (2, 2, ROWS)), axis=0)
SCATTERED[:, 0, 64:192] = 5
RUNS: dict[str, tuple[Case, Tile]] = {     # blocks enough that every stage is filled again
  'packed': (Case(packed_ranges(DOCUMENTS), keys=ROWS, heads=2, key_heads=1, head_size=64, scale=0.125), Tile(64, 64, 2)),
  'scattered': (Case(Ranges(*jnp.asarray(SCATTERED, jnp.int32), Kind()), keys=ROWS, heads=1, key_heads=1, head_size=64,
                     scale=0.125, softcap=2.0), Tile(64, 64, 5, 3)),
  'wide': (WIDE['heads of 256, prefix of documents'], Tile(64, 64, 3)),
}


def summed(add):
  def go(begin):
    def body(ref):
      add(ref)
      return ref[...]
    return begin + pl.run_scoped(body, ACC(begin.shape, begin.dtype))
  return go


def product(interpreter, eqn, token, read):
  """wgmma with its first operand in registers."""
  if isinstance(eqn.invars[1].aval, state.AbstractRef):
    return whole(interpreter, eqn, token, read)
  total, a, b, *leaves = read()
  none = jax.tree.structure([])
  trees = [eqn.params[f'{name}_transforms_tree'] or none for name in ('acc', 'a', 'b')]
  steps = jax.tree.unflatten(jax.tree_util.treedef_tuple(trees), leaves)
  (total, to), (b, by) = (jaxpr_interpret.resolve_ref(eqn.invars[n].aval, key, steps[n]) for n, key in ((0, total), (2, b)))
  call = functools.partial(multiply, source=eqn.source_info)
  return callback.io_callback(call, gpu_callbacks.TOKEN_SHAPE_DTYPE, token, interpreter.mesh_location, interpreter.thread, a,
                              total, to, b, by), []


def multiply(token, location, thread, a, total, to, b, by, *, source):
  memory, info = gpu_callbacks._get_shared_memory(), gpu_callbacks.memory.GPULoggingInfo(location, thread, source)

  def place(key, steps):
    key = gpu_callbacks.HostAllocationKey.from_array(key)
    return key, memory.access(key, jax.tree.map(int, gpu_callbacks._remove_noop_transforms(steps)))

  def held(at):
    return memory.get_buffer_content(*at, thread, logging_info=info)[0]

  total, b = place(total, to), place(b, by)
  result = held(total) + np.matmul(np.asarray(a), held(b), dtype=np.float32)
  memory.store_buffer_content(*total, result, thread, logging_info=info)
  return token


Interpreter = next(x for x in vars(jaxpr_interpret).values() if hasattr(x, '_interpret_wgmma_ref_p'))
whole = Interpreter._interpret_wgmma_ref_p


def run(name: str) -> None:
  """Fails unless result and gradients are near the float64 softmax's, without a race."""
  case, tile = RUNS[name]
  q, k, v, g = operands(case, 'bfloat16')
  plan = Plan(Kind(), case.scale, case.softcap, Tiles(tile, tile, tile), False)
  grouped = (*q.shape[:2], k.shape[2], -1, q.shape[-1])
  arrays = q.reshape(grouped), k, v, *within(case.ranges.first_BL, case.ranges.last_BL, k.shape[1])
  with force_gpu_interpret_mode(InterpretGPUParams(detect_races=True)):
    out, lse = jax.jit(functools.partial(attention_hopper.forward, plan))(*arrays)
    rest = lse, delta(out, g.reshape(grouped)), g.reshape(grouped)
    dq, dk, dv = jax.jit(functools.partial(attention_hopper.backward, plan))(*arrays, *rest)
    results = out.reshape(q.shape), dq.reshape(q.shape), dk, dv
  for value, expected in zip(results, truth(case, q, k, v, g)):
    close(value, expected, 1e-2)
  assert not gpu_callbacks.get_races().races_found


if __name__ == '__main__':
  begun = mock.Mock(side_effect=ACC)
  begun.init = lambda value: value
  with mock.patch.object(Interpreter, '_interpret_wgmma_ref_p', product), mock.patch.object(pl, 'run_state', summed), \
       mock.patch.object(attention_hopper.plg, 'ACC', begun):
    for asked in sys.argv[1:]:
      if asked == CUT:
        attention_hopper.key_bounds = shorter(attention_hopper.key_bounds)
      else:
        run(asked)
