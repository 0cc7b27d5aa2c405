"""How fast checkpoints are, beside Orbax as it comes: `python -m tests.campaign.speed [--megabytes=500] [--rounds=3]`.

Prints one JSON line; times are minima in seconds, since the machine may be shared, and `_cpu` is the time of all cores
together, which others can hardly lengthen. `stall` is what the training loses: the time of the call, and what the next
step, which takes the state's memory, needs more than a step with no save before it. `orbax_arrays` is Orbax alone in
the layout that is used here, without digests and seal.
"""

import json
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import app, flags

from train.checkpoint import Checkpoints
from train.saving import arrays, integrity
from train.saving.digest import digests
from train.saving.leaves import bits, named
from train.types import State

MEGABYTES = flags.DEFINE_integer('megabytes', 500, 'size of the state')
ROUNDS = flags.DEFINE_integer('rounds', 3, 'repetitions, of which the fastest counts')


def main(_) -> None:
  state = jax.block_until_ready(jax.jit(born, static_argnums=0)(MEGABYTES.value))
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  with tempfile.TemporaryDirectory(dir='.') as folder:
    times = ours(Path(folder) / 'ours', state)
    state = jax.block_until_ready(jax.jit(born, static_argnums=0)(MEGABYTES.value))
    place = Path(folder).resolve() / 'orbax'
    times |= orbax(place, state, 'orbax_default', ocp.Checkpointer(ocp.PyTreeCheckpointHandler()))
    times |= orbax(place, state, 'orbax_arrays', arrays._orbax())
  print(json.dumps({'bytes': size, 'leaves': len(jax.tree.leaves(state))} | {
      name: round(seconds, 4) for name, seconds in times.items()}))


def born(megabytes: int) -> State:
  """A state like that of a decoder with Adam: ten matrices and two vectors a layer, three times over."""
  wide = 640
  layers = max(round(megabytes * 1e6 / 3 / 4 / (10 * wide * wide)), 1)
  noise = jax.random.normal(jax.random.key(1), (wide, wide))
  params = {f'layer_{i}': {f'w{j}': noise * (i + j / 10 + 1) for j in range(10)} | {'scale': jnp.ones(wide)}
            for i in range(layers)}
  return State(jnp.int32(0), params, {'mu': params, 'nu': params}, jax.random.key(0))


@partial(jax.jit, donate_argnums=0)
def step(state: State) -> State:
  return state.replace(params=jax.tree.map(lambda x: x + 1, state.params),
                       opt_state=jax.tree.map(lambda x: x * 1.5, state.opt_state))


def timed(call, *args):
  """Seconds, and what came out, all of it computed."""
  start = time.perf_counter()
  out = jax.block_until_ready(call(*args))
  return time.perf_counter() - start, out


def ours(folder: Path, state: State) -> dict[str, float]:
  found = {'save_call': [], 'save': [], 'save_cpu': [], 'after': [], 'plain': []}
  with Checkpoints(folder) as saves:
    for index in range(1, ROUNDS.value + 2):
      seconds, state = timed(step, state)
      found['plain'].append(seconds)
      start, cpu = time.perf_counter(), time.process_time()
      saves.save(index, state, {'source': index})
      found['save_call'].append(time.perf_counter() - start)
      seconds, state = timed(step, state)
      found['after'].append(seconds)
      saves.wait()
      found['save'].append(time.perf_counter() - start)
      found['save_cpu'].append(time.process_time() - cpu)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    restores = [timed(lambda: saves.restore(like)[0])[0] for _ in range(ROUNDS.value)]
    last = folder / str(saves.steps()[-1])
    seal = integrity.read(last)
    files = [timed(integrity.verify, last, seal)[0] for _ in range(ROUNDS.value)]
    leaves = bits(named(state))
    elements = [timed(digests, leaves)[0] for _ in range(ROUNDS.value)]
  best = {name: min(values[1:]) for name, values in found.items()}      # the first save has to get its memory
  return {'save': best['save'], 'save_cpu': best['save_cpu'],
          'stall': best['save_call'] + max(0.0, best['after'] - best['plain']),
          'save_call': best['save_call'], 'first_save_call': found['save_call'][0], 'step': best['plain'],
          'step_after': best['after'], 'restore': min(restores), 'verify_files': min(files),
          'digest_leaves': min(elements), 'digest_gb_per_s': seal.bytes / 1e9 / min(elements),
          'sha256_gb_per_s': seal.bytes / 1e9 / min(files)}


def orbax(folder: Path, state: State, name: str, checkpointer: ocp.Checkpointer) -> dict[str, float]:
  item = bits(named(state))
  arguments = ocp.args.PyTreeRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, item),
                                     ocp.checkpoint_utils.construct_restore_args(item))
  saves, cpus, restores = [], [], []
  for index in range(ROUNDS.value):
    start, cpu = time.perf_counter(), time.process_time()
    checkpointer.save(folder / str(index), args=ocp.args.PyTreeSave(item))
    saves.append(time.perf_counter() - start)
    cpus.append(time.process_time() - cpu)
    restores.append(timed(partial(checkpointer.restore, args=arguments), folder / str(index))[0])
    shutil.rmtree(folder / str(index))
  return {name: min(saves), f'{name}_cpu': min(cpus), f'{name}_restore': min(restores)}


if __name__ == '__main__':
  app.run(main)
