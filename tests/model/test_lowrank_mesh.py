"""Adapters that drop some of their input, on a mesh that cuts everything: the draw is that of one device, by place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.zigzag import ZigZag
from model import lowrank
from model.adapt import LoRA
from model.adapter_tree import adapters, bases, keyed
from model.lowrank import dropped
from model.sharding import MeshShape, batch_sharding, shardings
from tests.model.variants import made, small
from train.edits import edited, join

KEY = jax.random.key(0)
EDITS = (LoRA(2, dropout=0.5),)
CONFIG = small(tied=False, layers=1)
IN_LINE, FOLDED = 14, 16              # positions of a row on two devices: those that divide by four are folded


def begun():
  """The model, and its tree as if B had learned something."""
  model, params = made(CONFIG)
  return model, jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape)
    if any(getattr(part, 'name', None) == 'b' for part in path) else leaf, edited(EDITS, params, KEY))


def graded(model):
  def loss(learned, base, batch, key):
    params = keyed(join(learned, {'base': base}), key)
    x_BLD = model.hidden(params, batch['tokens'], batch['segments']).x_BLD
    return model.nll(params, x_BLD, batch['tokens'], jnp.ones(x_BLD.shape[:2])).nll / batch['tokens'].size

  return jax.value_and_grad(loss)


def rows(length):
  tokens = np.random.default_rng(0).integers(0, 64, (4, length)).astype(np.int32)
  return {'tokens': tokens, 'segments': np.asarray([[1] * 5 + [2] * (length - 8) + [0] * 3, *[[1] * length] * 3], np.int32)}


def alone(length, key=KEY):
  """Loss and gradients on one device, flat."""
  model, params = begun()
  return jax.tree.leaves(jax.jit(graded(model))(adapters(params), bases(params), rows(length), key))


def cut(length):
  """The same on eight, over rows, parameters, positions and heads."""
  model, params = begun()
  mesh = MeshShape(1, 2, 2, 2).build()
  with jax.set_mesh(mesh):
    places = shardings(jax.eval_shape(lambda key: edited(EDITS, model.init(key), key), KEY), mesh)
    given = tuple(jax.device_put(take(params), take(places)) for take in (adapters, bases))
    run = jax.jit(graded(model), in_shardings=(adapters(places), bases(places), batch_sharding(mesh), None))
    return jax.tree.leaves(run(*given, jax.device_put(rows(length), batch_sharding(mesh)), KEY))


def far(first, second):
  """The largest difference, of the largest number of each."""
  return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(first, second, strict=True))


def test_rows_in_line_are_dropped_as_on_one_device():
  """Loss and gradients; the control is another key."""
  found = cut(IN_LINE)
  assert far(found, alone(IN_LINE)) < 1e-4 < 1e-2 < far(found, alone(IN_LINE, jax.random.key(1)))


def test_folded_rows_are_dropped_by_where_they_lie(monkeypatch):
  """The same draw for the same places: one device, given it in that order, finds the same. As it is, it has another draw."""
  found, as_it_is = cut(FOLDED), alone(FOLDED)
  held = FOLDED // 2
  position = np.concatenate([begin + np.arange(held // 2) for device in (0, 1) for begin in ZigZag(2).begins(device, held)])
  monkeypatch.setattr(lowrank, 'dropped', lambda w, x: x * dropped(w, jnp.ones_like(x))[:, np.argsort(position)])
  assert far(found, alone(FOLDED)) < 1e-4 < 1e-2 < far(found, as_it_is)


@pytest.mark.parametrize('share', [0.1, 0.5])
def test_a_share_is_dropped_and_the_mean_kept(share):
  """Of rows on eight devices as of rows on one, to the bit."""
  w = lowrank.LowRank(None, None, None, seeds=jax.random.key_data(KEY), dropout=share)
  x = jnp.ones((8, 64, 100))
  mask = np.asarray(jax.jit(dropped)(w, x))
  sigma = (share * (1 - share) / x.size) ** 0.5
  assert abs((mask == 0).mean() - share) < 4 * sigma and abs(mask.mean() - 1) < 4 * sigma / (1 - share)
  mesh = MeshShape(2, 2, 2).build()
  with jax.set_mesh(mesh):
    spread = jax.jit(dropped)(w, jax.device_put(x, jax.NamedSharding(mesh, jax.P(('data', 'fsdp'), 'seq'))))
  np.testing.assert_array_equal(spread, mask)
