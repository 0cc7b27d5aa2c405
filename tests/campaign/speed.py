"""How fast checkpoints are, beside Orbax as it comes: `python -m tests.campaign.speed [--megabytes=500] [--rounds=3]`.

Prints one JSON line; times are minima in seconds, since the machine may be shared. `stall` is what the training loses:
the time of `save`, and what the next step, which takes the state's memory, needs more than a step with no save before.
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
from train.saving import integrity
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
    times |= orbax(Path(folder).resolve() / 'orbax', jax.jit(born, static_argnums=0)(MEGABYTES.value))
  print(json.dumps({'bytes': size, 'leaves': len(jax.tree.leaves(state))} | {
      name: round(seconds, 4) for name, seconds in times.items()}))


def born(megabytes: int) -> State:
  """A state like that of a decoder with Adam: ten matrices and two vectors a layer, three times over."""
  wide = 640
  layers = max(round(megabytes * 1e6 / 3 / 4 / (10 * wide * wide)), 1)
  key = jax.random.key(1)
  keys = jax.random.split(key, (layers, 10))
  params = {f'layer_{i}': {f'w{j}': jax.random.normal(keys[i, j], (wide, wide)) for j in range(10)}
            | {'scale': jnp.ones(wide)} for i in range(layers)}
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
  found = {'save_call': [], 'save': [], 'after': [], 'plain': []}
  with Checkpoints(folder) as saves:
    for index in range(1, ROUNDS.value + 2):
      seconds, state = timed(step, state)
      found['plain'].append(seconds)
      start = time.perf_counter()
      saves.save(index, state, {'source': index})
      found['save_call'].append(time.perf_counter() - start)
      seconds, state = timed(step, state)
      found['after'].append(seconds)
      saves.wait()
      found['save'].append(time.perf_counter() - start)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    restores = [timed(lambda: saves.restore(like)[0])[0] for _ in range(ROUNDS.value)]
    last = folder / str(saves.steps()[-1])
    seal = integrity.read(last)
    files = [timed(integrity.verify, last, seal)[0] for _ in range(ROUNDS.value)]
    leaves = bits(named(state))
    elements = [timed(digests, leaves)[0] for _ in range(ROUNDS.value)]
  best = {name: min(values[1:]) for name, values in found.items()}      # the first save has to get its memory
  return {'save': best['save'], 'stall': best['save_call'] + max(0.0, best['after'] - best['plain']),
          'save_call': best['save_call'], 'first_save_call': found['save_call'][0], 'step': best['plain'],
          'step_after': best['after'], 'restore': min(restores), 'verify_files': min(files),
          'digest_leaves': min(elements), 'digest_gb_per_s': seal.bytes / 1e9 / min(elements),
          'sha256_gb_per_s': seal.bytes / 1e9 / min(files)}


def orbax(folder: Path, state: State) -> dict[str, float]:
  """Orbax as it comes: an AsyncCheckpointer over a StandardCheckpointHandler."""
  item = bits(named(state))
  saves, calls, restores = [], [], []
  checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
  for index in range(ROUNDS.value):
    start = time.perf_counter()
    checkpointer.save(folder / str(index), args=ocp.args.StandardSave(item))
    calls.append(time.perf_counter() - start)
    checkpointer.wait_until_finished()
    saves.append(time.perf_counter() - start)
    arguments = ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, item))
    restores.append(timed(partial(checkpointer.restore, args=arguments), folder / str(index))[0])
    shutil.rmtree(folder / str(index))
  checkpointer.close()
  return {'orbax_save': min(saves), 'orbax_save_call': min(calls), 'orbax_restore': min(restores)}


if __name__ == '__main__':
  app.run(main)
