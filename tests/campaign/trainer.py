"""A small real training with all that can be forgotten: moments, a schedule, dropout by key, rows by position.

It is made of the parts that every run is made of and leaves a folder like theirs: `ledger.jsonl` and `checkpoints/`.
"""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.checkpoint import Checkpoints
from train.hooks import Preempted
from train.ledger import Ledger
from train.lock import Lock
from train.preemption import Preemption
from train.step import born, gradient, make_step
from train.types import Loss, Mean, State

WIDTH, ROWS = 128, 8
HERE = {'machine': 'this one'}


class Rows:
  """Row i is a function of i; the position is the number of the next row."""

  def __init__(self) -> None:
    self.next = 0

  def __call__(self, state: State) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([7, self.next])
    self.next += ROWS
    x_BD = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    return {'x': x_BD, 'y': np.tanh(x_BD.cumsum(1))}

  def save(self) -> dict[str, int]:
    return {'next': self.next}

  def load(self, position: dict[str, int]) -> None:
    self.next = position['next']


def loss(params, frozen, batch, key) -> Loss:
  hidden_BD = jnp.tanh(batch['x'] @ params['in']) * jax.random.bernoulli(key, 0.9, (ROWS, WIDTH))
  errors_B = ((hidden_BD @ params['out'] - batch['y']) ** 2).mean(1)
  return Loss(Mean(errors_B.sum(), jnp.float32(ROWS)), {})


def init(key):
  first, second = jax.random.split(key)
  return {'in': jax.random.normal(first, (WIDTH, WIDTH)) / 8, 'out': jax.random.normal(second, (WIDTH, WIDTH)) / 8}


@functools.cache
def parts(steps: int):
  """The compiled step and birth of a training of so many steps."""
  tx = optax.chain(optax.clip_by_global_norm(1.0),
                   optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-3, max(steps // 4, 1), steps)))
  return jax.jit(make_step(gradient(loss), tx), donate_argnums=0), jax.jit(lambda: born(init, jax.random.key(3), tx))


def live(folder: Path, steps: int = 12, every: int = 3, pause: float = 0.0, reserve: int = 0) -> Path:
  """Trains what is left of `steps` steps, in the folder, which it gives back; each step is `pause` seconds longer."""
  step_fn, birth = parts(steps)
  with (Lock(folder), Checkpoints(folder / 'checkpoints', reserve=reserve, pauses=(0.0, 0.0)) as saves,
        Preemption() as preemption, Ledger(folder, HERE) as ledger):
    source = Rows()
    restored = saves.restore(jax.eval_shape(birth))
    state, host = restored or (birth(), {'source': source.save()})
    source.load(host['source'])

    def save():
      saves.wait()
      saves.save(step, state, {'source': source.save()})

    for step in range(int(state.step) + 1, steps + 1):
      state, metrics = step_fn(state, {}, source(state))
      ledger.write(step, {name: float(mean.value()) for name, mean in metrics.items()})
      saves.check()
      time.sleep(pause)
      if preemption.asked(step):
        save()
        saves.wait()
        raise Preempted('run.preempted', f'step {step}', 'a signal came', 'launch again')
      if step % every == 0 or step == steps:
        save()
  return folder
