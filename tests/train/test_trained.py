"""A run opened for use: by whatever devices are here, reading what a model is judged by, and touching nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.errors import CheckpointError
from model.sharding import MeshShape
from tests.train.runs import tiny_run
from train.artifact import Store
from train.optimizer import Optimizer, averaged
from train.saving import reading
from train.saving.leaves import named
from train.trained import judged_by, load, opened, params_of


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run that was trained on a mesh of all eight devices, with a moving average, and the store that holds it."""
  folder = tmp_path_factory.mktemp('trained')
  made = replace(tiny_run(folder), mesh=MeshShape(data=2, fsdp=4), optimizer=Optimizer(ema=0.5))
  store = Store(folder / 'runs')
  store.make(made)
  return made, store


@pytest.mark.parametrize('count', [1, 2, 8])
def test_any_devices_open_it(trained, count):
  made, store = trained
  whole, some = load(made, store), load(made, store, jax.devices()[:count])
  assert some.step == 2
  for mine, other in zip(jax.tree.leaves(whole.params), jax.tree.leaves(some.params), strict=True):
    assert len(other.sharding.device_set) == count
    np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))


def test_the_moving_average_is_read_and_nothing_that_it_replaces(trained):
  made, _ = trained
  wanted = set(named(judged_by(opened(made, jax.devices()).abstract)))
  assert 'step' in wanted and not [name for name in wanted if name.startswith(('params', 'key')) or '.mu' in name]
  plain = opened(replace(made, optimizer=Optimizer()), jax.devices()).abstract
  assert {name.split('.')[0] for name in named(judged_by(plain))} == {'step', 'params'}
  assert len(wanted) == len(named(judged_by(plain))) and averaged(judged_by(plain).opt_state) is None


def test_parameters_in_bfloat16_come_back_as_such_though_their_average_is_kept_in_float32(tmp_path):
  plain = tiny_run(tmp_path)
  made = replace(plain, model=replace(plain.model, param_dtype='bfloat16'), optimizer=Optimizer(ema=0.5))
  store = Store(tmp_path / 'runs')
  store.make(made)
  abstract = opened(made, jax.local_devices()).abstract
  state, _ = reading.load(store.folder(made) / 'checkpoints', abstract)
  kept = params_of(state)
  assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype('float32')}
  params = load(made, store).params
  assert jax.tree.structure(params) == jax.tree.structure(abstract.params)
  for mine, saved, learning in zip(*map(jax.tree.leaves, (params, kept, state.params)), strict=True):
    assert mine.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(mine), np.asarray(saved).astype(jnp.bfloat16))
    np.testing.assert_allclose(np.asarray(mine, np.float32), np.asarray(learning, np.float32), atol=2e-3)


def test_a_save_that_goes_on_meanwhile_is_left_alone(trained):
  """A training of the same run may be writing it: opening the run for a restore would sweep it away."""
  made, store = trained
  draft = store.folder(made) / 'checkpoints' / '3.saving'
  draft.mkdir()
  load(made, store)
  assert draft.is_dir()


def test_nothing_saved_is_said(trained, tmp_path):
  with pytest.raises(CheckpointError, match='has not saved anything yet') as caught:
    load(trained[0], Store(tmp_path))
  assert caught.value.id == 'checkpoint.none'
