"""One of two processes that train together: `python -m tests.campaign.pair PORT PROCESS FOLDER STEPS`."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from model.errors import PREEMPTED
from train.checkpoint import Checkpoints
from train.ledger import Ledger
from train.lock import Lock
from train.preemption import Preemption
from train.step import born, gradient, make_step
from train.types import Loss, Mean, State

WIDTH = 64
TX = optax.adamw(1e-2)


def loss(params, frozen, batch, key) -> Loss:
  errors_B = ((jnp.tanh(batch['x'] @ params['w']) @ params['out'] - batch['x']) ** 2).mean(1)
  return Loss(Mean(errors_B.sum(), jnp.float32(len(batch['x']))), {})


def birth() -> State:
  def init(key):
    return {'w': jax.random.normal(key, (WIDTH, WIDTH)) / 8, 'out': jnp.eye(WIDTH)}
  return born(init, jax.random.key(0), TX)


def places(devices) -> State:
  """Where the state lies: matrices are spread over the devices of all processes."""
  mesh = jax.make_mesh((len(devices),), ('x',), axis_types=(AxisType.Auto,), devices=devices)
  return jax.tree.map(lambda leaf: NamedSharding(mesh, PartitionSpec('x') if leaf.ndim == 2 else PartitionSpec()),
                      jax.eval_shape(birth))


def like(devices) -> State:
  return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
                      jax.eval_shape(birth), places(devices))


def rows(step: int, place: NamedSharding) -> dict[str, jax.Array]:
  x = np.random.default_rng(step).normal(size=(8, WIDTH)).astype(np.float32)
  return {'x': jax.make_array_from_callback(x.shape, place, lambda index: x[index])}


def train(folder: Path, steps: int) -> int:
  """The exit code of this process's part in what is left of the training."""
  devices = jax.devices()
  step_fn = jax.jit(make_step(gradient(loss), TX), donate_argnums=0)
  by_row = places(devices).params['w']
  with Lock(folder), Checkpoints(folder / 'checkpoints') as saves, Preemption() as preemption:
    found = saves.restore(like(devices))
    state = found[0] if found else jax.jit(birth, out_shardings=places(devices))()
    ledger = Ledger(folder, {'devices': len(devices)}) if jax.process_index() == 0 else None
    print('begins at', int(state.step), flush=True)
    for step in range(int(state.step) + 1, steps + 1):
      state, metrics = step_fn(state, {}, rows(step, by_row))
      value = float(metrics['loss'].value())
      saves.check()
      if ledger:
        ledger.write(step, {'loss': value})
      print('step', step, flush=True)
      time.sleep(0.02)
      leaving = preemption.asked(step)
      if leaving or step % 3 == 0 or step == steps:
        saves.wait()
        saves.save(step, state, {'step': step})
      if leaving:
        saves.wait()
        return PREEMPTED
  return 0


def main() -> None:
  port, process, folder, steps = sys.argv[1:]
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(process), initialization_timeout=60,
                             coordinator_bind_address=f'127.0.0.1:{port}', heartbeat_timeout_seconds=10,
                             shutdown_timeout_seconds=10)
  code = train(Path(folder), int(steps))
  jax.distributed.shutdown()
  sys.exit(code)


if __name__ == '__main__':
  main()
