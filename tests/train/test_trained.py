"""A run opened for use: by whatever devices are here, reading what a model is judged by, and touching nothing."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from model.errors import CheckpointError
from model.sharding import MeshShape
from tests.train.test_paraphrase import run
from train.artifact import Store
from train.optimizer import Optimizer, averaged
from train.saving.leaves import named
from train.trained import judged_by, load, opened


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run that was trained on a mesh of all eight devices, with a moving average, and the store that holds it."""
  folder = tmp_path_factory.mktemp('trained')
  (folder / 'in').mkdir()
  made = replace(run(folder / 'in'), mesh=MeshShape(data=2, fsdp=4), optimizer=Optimizer(ema=0.5))
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
