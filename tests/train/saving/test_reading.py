"""Checkpoints are read by Orbax as it comes, in part, in an older layout, while they are deleted; and nothing is made up."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

from model.errors import CheckpointError
from tests.data.noticed import flip
from tests.train.saving.saves import at, new, restore, same, values, weights
from train.checkpoint import Checkpoints
from train.files import read_json
from train.saving import arrays, integrity, reading, shelf
from train.saving.leaves import abstract_bits, bits, named
from train.saving.reading import load


def test_orbax_reads_what_was_saved(saved):
  """As it comes, with nothing of ours between."""
  found = ocp.PyTreeCheckpointer().restore(saved / '3' / 'state')
  assert {name: np.asarray(leaf).tobytes() for name, leaf in found.items()} == {
      name: value for name, value in values(at(3)).items() if value}


def test_a_folder_for_each_array_is_read_too(saved):
  """The layout of our first checkpoints, that Orbax calls plain zarr."""
  step = saved / '3'
  seal = integrity.read(step)
  shutil.rmtree(step / 'state')
  ocp.PyTreeCheckpointer(use_ocdbt=False).save(step / 'state', bits(named(at(3))))
  integrity.write(step, 3, seal.leaves, seal.digests)
  assert (step / 'state' / 'params.w' / '0.0').exists()
  assert same(restore(saved)[0], at(3))


def test_a_part_of_the_array_that_is_not_there_is_no_zeros(saved):
  """Plain zarr takes what is missing for zeros."""
  folder = saved / 'zarr'
  ocp.PyTreeCheckpointer(use_ocdbt=False).save(folder, {'w': at(1).params['w']})
  (folder / 'w' / '0.0').unlink()
  with pytest.raises(arrays.Absent, match='missing'):
    dict(arrays.read(folder, {'w': abstract_bits(at(1).params['w'])}))


def test_a_step_into_which_a_part_was_never_written_is_damaged(saved, caplog):
  seal = integrity.read(saved / '3')
  base = {'driver': 'file', 'path': f'{saved / "3" / "state"}/'}
  stored = ts.KvStore.open({'driver': 'ocdbt', 'base': base}).result()
  stored.delete_range(ts.KvStore.KeyRange('params.w/0', 'params.w/1')).result()
  integrity.write(saved / '3', 3, seal.leaves, seal.digests)
  assert restore(saved)[1] == {'source': 2} and 'params.w' in caplog.text


def test_a_part_is_read_alone_and_nothing_is_changed(saved):
  flip(*weights(saved, 3))
  before = sorted(saved.rglob('*'))
  part, host = load(saved, {'params': {'half': jax.eval_shape(new).params['half']}})
  assert (part['params']['half'] == at(2).params['half']).all() and host == {'source': 2}
  assert sorted(saved.rglob('*')) == before


def test_a_step_that_is_deleted_while_it_is_read_is_no_damage(saved, monkeypatch, caplog):
  verify = integrity.verify

  def meanwhile(path, seal):
    monkeypatch.setattr(integrity, 'verify', verify)
    with Checkpoints(saved, keep=1) as saves:
      saves.save(4, at(4), {'source': 4})
    verify(path, seal)

  monkeypatch.setattr(integrity, 'verify', meanwhile)
  assert load(saved, {'step': jax.eval_shape(new).step})[1] == {'source': 4} and not caplog.records


def test_no_part_of_what_is_not_there(saved, tmp_path):
  with pytest.raises(CheckpointError, match=r'1 not in the checkpoint: params\.other'):
    load(saved, {'params': {'other': jnp.zeros(3)}})
  with pytest.raises(CheckpointError, match='no step in it is whole'):
    load(tmp_path / 'nowhere', {'params': {'w': jnp.zeros(3)}})


def test_a_look_does_not_need_the_folder(tmp_path):
  assert shelf.look(tmp_path / 'nowhere') == shelf.Shelf()


def test_a_step_that_is_deleted_before_its_host_values_are_read_is_passed_over(saved, monkeypatch):
  def delete_then_read(path):
    if path.parent.name == '3':
      shelf.remove(path.parent)
    return read_json(path)

  monkeypatch.setattr(reading, 'read_json', delete_then_read)
  assert load(saved, jax.eval_shape(new))[1] == {'source': 2}


def test_a_step_that_is_deleted_while_it_is_looked_at_is_not_all_there_was(saved, monkeypatch):
  """A training that keeps one step puts the next in its place."""
  (saved / '3').rename(saved.parent / '3')
  shelf.remove(saved / '1')
  whole = shelf.whole

  def replace_then_look(path):
    if path.name == '2':
      (saved.parent / '3').rename(saved / '3')
      shelf.remove(path)
    return whole(path)

  monkeypatch.setattr(shelf, 'whole', replace_then_look)
  assert load(saved, jax.eval_shape(new))[1] == {'source': 3}
