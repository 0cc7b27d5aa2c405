"""A whole training step on other meshes and in other parts: the same numbers, and parameters cut as the mesh says."""

import jax
import numpy as np
import pytest

from model.config import Attention, Compute, Decoder, Gated
from model.errors import ConfigError
from model.sharding import MeshShape, batch_sharding
from train.build import build, compiled, start
from train.objectives import NextToken
from train.optimizer import AdamW, Muon, Optimizer
from train.schedule import Constant

MODEL = Decoder(64, 32, 2, Attention(4, 2, 8), Gated(64), tied=False)
BATCH, LENGTH, STEPS = 16, 16, 4


def rows(seed):
  """Packed rows with documents of uneven lengths and some padding."""
  rng = np.random.default_rng(seed)
  segments = np.sort(rng.integers(0, 4, (BATCH, LENGTH + 1)), axis=1)[:, ::-1]
  segments = np.where(segments > 0, segments.max(1, keepdims=True) + 1 - segments, 0)
  return {'tokens': rng.integers(0, 64, segments.shape).astype(np.int32), 'segments': segments.astype(np.int32)}


def walk(mesh=MeshShape(data=1), devices=1, parts=1, compute=Compute(), rule=AdamW(1e-2)):
  built = build(MODEL, NextToken(1e-4), Optimizer(rule, Constant()), STEPS, batch=BATCH, length=LENGTH, parts=parts,
                compute=compute, mesh=mesh, devices=jax.devices()[:devices])
  state = start(built, seed=0)
  losses = []
  with jax.set_mesh(built.mesh):
    step = compiled(built)
    for seed in range(STEPS):
      state, metrics = step(state, {}, jax.device_put(rows(seed), batch_sharding(built.mesh)))
      losses.append(float(metrics['loss'].value()))
  return built, state, losses


@pytest.fixture(scope='module')
def alone():
  return walk()


@pytest.mark.parametrize('shape, devices, parts', [
    (MeshShape(data=8), 8, 1), (MeshShape(data=1, fsdp=8), 8, 2), (MeshShape(data=2, fsdp=2, tensor=2), 8, 1),
    (MeshShape(data=2, seq=2), 4, 1), (MeshShape(data=1), 1, 4)])
def test_mesh_and_parts_change_nothing(alone, shape, devices, parts):
  _, state, losses = walk(shape, devices, parts)
  np.testing.assert_allclose(losses, alone[2], atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), jax.device_get(state.params),
               jax.device_get(alone[1].params))


def test_muon_on_a_cut_matrix_is_muon_on_the_whole(alone):
  whole, cut = walk(rule=Muon(1e-2)), walk(MeshShape(data=2, fsdp=4), 8, rule=Muon(1e-2))
  np.testing.assert_allclose(cut[2], whole[2], atol=1e-5)
  assert abs(whole[2][-1] - alone[2][-1]) > 1e-3       # and it is another rule than Adam


def test_moments_lie_where_their_parameters_lie():
  built, state, _ = walk(MeshShape(data=2, fsdp=4), 8)
  cut = {jax.tree_util.keystr(path): leaf.sharding for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
         if leaf.sharding.shard_shape(leaf.shape) != leaf.shape}
  assert cut
  moments = {jax.tree_util.keystr(path): leaf.sharding
             for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)}
  for name, sharding in cut.items():
    found = [place for path, place in moments.items() if path.endswith(name)]
    assert len(found) == 2 and all(place.spec == sharding.spec for place in found)
  alike = jax.tree.map(lambda leaf, born: leaf.sharding.is_equivalent_to(born.sharding, leaf.ndim), state, built.abstract)
  assert all(jax.tree.leaves(alike))


def test_a_batch_that_does_not_divide_names_one_that_does():
  with pytest.raises(ConfigError, match='batch = 20') as error:
    build(MODEL, NextToken(), Optimizer(), STEPS, batch=20, length=LENGTH, parts=2, devices=jax.devices()[:8])
  assert error.value.do == 'use 16'
