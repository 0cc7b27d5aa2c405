"""A small state, steps of its training, and what tests of checkpoints do to them on a disk."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from train.checkpoint import Checkpoints
from train.saving.leaves import bits, named
from train.step import born
from train.types import State

TX = optax.adamw(1e-2)


def init(key):
  return {'w': jax.random.normal(key, (16, 24)), 'half': jnp.full((5,), 0.3, jnp.bfloat16), 'none': jnp.zeros((0, 2)),
          'frozen': None}


@jax.jit
def new(seed=0) -> State:
  return born(init, jax.random.key(seed), TX)


@jax.jit
def _next(state: State) -> State:
  return state.replace(step=state.step + 1, params=jax.tree.map(lambda x: x * 1.25 + 0.5, state.params),
                       opt_state=jax.tree.map(lambda x: x + 1, state.opt_state))


overwrite = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 - 1, state.params), donate_argnums=0)


def at(step: int) -> State:
  """The state that this file's training has after `step` steps."""
  state = new()
  for _ in range(step):
    state = _next(state)
  return state


def values(state: State) -> dict[str, bytes]:
  """All of a state, as bytes."""
  return {name: np.asarray(leaf).tobytes() for name, leaf in bits(named(state)).items()}


def same(state: State, other: State) -> bool:
  return values(state) == values(other) and jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
      lambda x: (x.shape, x.dtype), other)


def restore(folder: Path, like=None, **kwargs):
  with Checkpoints(folder, **kwargs) as saves:
    return saves.restore(jax.eval_shape(new) if like is None else like)


def weights(folder: Path, step: int) -> tuple[Path, int]:
  """The file in which the weights lie, as raw numbers, and where their first byte is."""
  w = np.asarray(at(step).params['w']).tobytes()
  return next((path, place) for path in (folder / str(step)).rglob('*')
              if path.is_file() and (place := path.read_bytes().find(w)) >= 0)


def layout(devices: int, how: str):
  mesh = jax.make_mesh((devices,), ('x',), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
  spec = PartitionSpec('x') if how == 'w' else PartitionSpec(None, 'x')
  return jax.tree.map(lambda leaf: NamedSharding(mesh, spec if leaf.shape == (16, 24) else PartitionSpec()),
                      jax.eval_shape(new))


def fail(error: Exception):
  raise error
