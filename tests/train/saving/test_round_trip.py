"""What comes back is what was saved, to the bit, whatever happens meanwhile to the state, the folder and the mesh."""

import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.saving.saves import at, layout, new, overwrite, restore, same
from train.checkpoint import Checkpoints
from train.saving import arrays, writing
from train.saving.host_copy import HostCopy
from train.saving.reading import load


def test_a_new_folder_holds_nothing(folder):
  assert restore(folder) is None


def test_what_comes_back_is_what_was_saved(saved):
  state, host = restore(saved)
  assert same(state, at(3)) and host == {'source': 3}
  assert (jax.random.normal(state.key) == jax.random.normal(new().key)).all()


def test_what_a_failed_save_writes_late_goes_too(folder):
  draft = folder / '7.saving'
  draft.mkdir(parents=True)
  late = threading.Timer(0.05, lambda: (draft / 'state').mkdir(parents=True))
  late.start()
  writing.discard(folder, 7)
  late.join()
  assert not draft.exists()


def test_a_folder_may_be_named_from_where_one_stands(folder, monkeypatch):
  monkeypatch.chdir(folder.parent)
  with Checkpoints(Path('checkpoints')) as saves:
    saves.save(1, at(1), {})
  assert same(restore(Path('checkpoints'))[0], at(1)) and same(load(Path('checkpoints'), jax.eval_shape(new))[0], at(1))


def test_the_state_may_be_donated_at_once(folder):
  with Checkpoints(folder) as saves:
    for step in (1, 2, 3):
      state = at(step)
      saves.save(step, state, {})
      jax.block_until_ready(overwrite(state))
      saves.wait()
      assert same(saves.restore(jax.eval_shape(new))[0], at(step))


def test_with_memory_of_its_own_a_device_keeps_nothing_back(folder, monkeypatch):
  """The way of a GPU or a TPU, through pinned memory of the host, which the CPU pretends to have."""
  arrays._orbax.cache_clear()
  with monkeypatch.context() as patched:
    patched.setattr(jax, 'default_backend', lambda: 'gpu')
    with Checkpoints(folder) as saves:
      state = jax.device_put(at(1), layout(4, 'w'))
      saves.save(1, state, {})
      jax.block_until_ready(overwrite(state))
  arrays._orbax.cache_clear()
  assert same(restore(folder)[0], at(1))


def test_a_copy_that_something_still_looks_at_is_not_overwritten():
  """A write that failed may go on reading in the background while the next save makes its copy."""
  held = HostCopy()
  view = np.asarray(held({'w': jnp.zeros(5000)})['w'])
  held({'w': jnp.ones(5000)})
  assert (view == 0).all()


def test_a_copy_goes_into_the_memory_of_the_copy_before():
  held = HostCopy()
  first = held({'w': jnp.zeros(5000)})['w'].unsafe_buffer_pointer()
  assert held({'w': jnp.ones(5000)})['w'].unsafe_buffer_pointer() == first


def test_host_values_are_those_of_the_call(folder):
  host = {'source': [1]}
  with Checkpoints(folder) as saves:
    saves.save(1, at(1), host)
    host['source'].append(2)
  assert restore(folder)[1] == {'source': [1]}


@pytest.mark.parametrize('written', [1, 2, 4, 8])
def test_any_mesh_reads_what_any_mesh_wrote(folder, written):
  with Checkpoints(folder) as saves:
    saves.save(1, jax.device_put(at(1), layout(written, 'w')), {})
  for read in (1, 2, 4, 8):
    like = jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
                        jax.eval_shape(new), layout(read, 'columns'))
    state, _ = restore(folder, like)
    assert same(state, at(1))
    assert state.params['w'].sharding.is_equivalent_to(like.params['w'].sharding, 2)
