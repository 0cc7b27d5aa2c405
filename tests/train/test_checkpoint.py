"""Laws of checkpoints: what comes back is what was saved, to the bit, or a refusal that names what is wrong."""

import json
import logging
import resource
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from model.errors import CheckpointError, StorageError
from tests.campaign.memory import MEMORY
from train import checkpoint
from train.checkpoint import Checkpoints
from train.saving import arrays, integrity, shelf, writing
from train.saving.held import Held
from train.saving.leaves import abstract_bits, bits, named
from train.saving.reading import load
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


@pytest.fixture
def folder() -> Iterator[Path]:
  with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
    yield Path(folder) / 'checkpoints'


@pytest.fixture
def saved(folder) -> Path:
  """A folder with the steps 1, 2 and 3."""
  with Checkpoints(folder, keep=3) as saves:
    for step in (1, 2, 3):
      saves.save(step, at(step), {'source': step})
      saves.wait()
  return folder


def restore(folder: Path, like=None, **kwargs):
  with Checkpoints(folder, **kwargs) as saves:
    return saves.restore(jax.eval_shape(new) if like is None else like)


def flip(path: Path, place: int) -> None:
  data = bytearray(path.read_bytes())
  data[place] ^= 1
  path.write_bytes(data)


def weights(folder: Path, step: int) -> tuple[Path, int]:
  """The file in which the weights lie, as raw numbers, and where their first byte is."""
  w = np.asarray(at(step).params['w']).tobytes()
  return next((path, place) for path in (folder / str(step)).rglob('*')
              if path.is_file() and (place := path.read_bytes().find(w)) >= 0)


class TestRoundTrip:

  def test_a_new_folder_holds_nothing(self, folder):
    assert restore(folder) is None

  def test_what_comes_back_is_what_was_saved(self, saved):
    state, host = restore(saved)
    assert same(state, at(3)) and host == {'source': 3}
    assert (jax.random.normal(state.key) == jax.random.normal(new().key)).all()

  def test_what_a_failed_save_writes_late_goes_too(self, folder):
    draft = folder / '7.saving'
    draft.mkdir(parents=True)
    late = threading.Timer(0.05, lambda: (draft / 'state').mkdir(parents=True))
    late.start()
    writing.discard(folder, 7)
    late.join()
    assert not draft.exists()

  def test_a_folder_may_be_named_from_where_one_stands(self, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with Checkpoints(Path('checkpoints')) as saves:
      saves.save(1, at(1), {})
    assert same(restore(Path('checkpoints'))[0], at(1)) and same(load(Path('checkpoints'), jax.eval_shape(new))[0], at(1))

  def test_the_state_may_be_donated_at_once(self, folder):
    with Checkpoints(folder) as saves:
      for step in (1, 2, 3):
        state = at(step)
        saves.save(step, state, {})
        jax.block_until_ready(overwrite(state))
        saves.wait()
        assert same(saves.restore(jax.eval_shape(new))[0], at(step))

  def test_with_memory_of_its_own_a_device_keeps_nothing_back(self, folder, monkeypatch):
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

  def test_a_copy_that_something_still_looks_at_is_not_overwritten(self):
    """A write that failed may go on reading in the background while the next save makes its copy."""
    held = Held()
    view = np.asarray(held({'w': jnp.zeros(5000)})['w'])
    held({'w': jnp.ones(5000)})
    assert (view == 0).all()

  def test_a_copy_goes_into_the_memory_of_the_copy_before(self):
    held = Held()
    first = held({'w': jnp.zeros(5000)})['w'].unsafe_buffer_pointer()
    assert held({'w': jnp.ones(5000)})['w'].unsafe_buffer_pointer() == first

  def test_host_values_are_those_of_the_call(self, folder):
    host = {'source': [1]}
    with Checkpoints(folder) as saves:
      saves.save(1, at(1), host)
      host['source'].append(2)
    assert restore(folder)[1] == {'source': [1]}

  @pytest.mark.parametrize('written', [1, 2, 4, 8])
  def test_any_mesh_reads_what_any_mesh_wrote(self, folder, written):
    with Checkpoints(folder) as saves:
      saves.save(1, jax.device_put(at(1), layout(written, 'w')), {})
    for read in (1, 2, 4, 8):
      like = jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
                          jax.eval_shape(new), layout(read, 'columns'))
      state, _ = restore(folder, like)
      assert same(state, at(1))
      assert state.params['w'].sharding.is_equivalent_to(like.params['w'].sharding, 2)

  def test_orbax_reads_what_was_saved(self, saved):
    """As it comes, with nothing of ours between."""
    found = ocp.PyTreeCheckpointer().restore(saved / '3' / 'state')
    assert {name: np.asarray(leaf).tobytes() for name, leaf in found.items()} == {
        name: value for name, value in values(at(3)).items() if value}

  def test_a_folder_for_each_array_is_read_too(self, saved):
    """The layout of our first checkpoints, that Orbax calls plain zarr."""
    step = saved / '3'
    seal = integrity.read(step)
    shutil.rmtree(step / 'state')
    ocp.PyTreeCheckpointer(use_ocdbt=False).save(step / 'state', bits(named(at(3))))
    integrity.write(step, 3, seal.leaves, seal.digests)
    assert (step / 'state' / 'params.w' / '0.0').exists()
    assert same(restore(saved)[0], at(3))

  def test_a_part_of_the_array_that_is_not_there_is_no_zeros(self, saved):
    """Plain zarr takes what is missing for zeros."""
    folder = saved / 'zarr'
    ocp.PyTreeCheckpointer(use_ocdbt=False).save(folder, {'w': at(1).params['w']})
    (folder / 'w' / '0.0').unlink()
    with pytest.raises(ValueError, match='missing'):
      dict(arrays.read(folder, {'w': abstract_bits(at(1).params['w'])}))

  def test_a_part_is_read_alone_and_nothing_is_changed(self, saved):
    flip(*weights(saved, 3))
    before = sorted(saved.rglob('*'))
    part, host = load(saved, {'params': {'half': jax.eval_shape(new).params['half']}})
    assert (part['params']['half'] == at(2).params['half']).all() and host == {'source': 2}
    assert sorted(saved.rglob('*')) == before

  def test_a_step_that_is_deleted_while_it_is_read_is_no_damage(self, saved, monkeypatch, caplog):
    verify = integrity.verify

    def meanwhile(path, seal):
      monkeypatch.setattr(integrity, 'verify', verify)
      with Checkpoints(saved, keep=1) as saves:
        saves.save(4, at(4), {'source': 4})
      verify(path, seal)

    monkeypatch.setattr(integrity, 'verify', meanwhile)
    assert load(saved, {'step': jax.eval_shape(new).step})[1] == {'source': 4} and not caplog.records

  def test_no_part_of_what_is_not_there(self, saved, tmp_path):
    with pytest.raises(CheckpointError, match=r'1 not in the checkpoint: params\.other'):
      load(saved, {'params': {'other': jnp.zeros(3)}})
    with pytest.raises(CheckpointError, match='no step in it is whole'):
      load(tmp_path / 'nowhere', {'params': {'w': jnp.zeros(3)}})


def layout(devices: int, how: str):
  mesh = jax.make_mesh((devices,), ('x',), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
  spec = PartitionSpec('x') if how == 'w' else PartitionSpec(None, 'x')
  return jax.tree.map(lambda leaf: NamedSharding(mesh, spec if leaf.shape == (16, 24) else PartitionSpec()),
                      jax.eval_shape(new))


class TestDamage:

  def test_a_flipped_bit_is_not_believed(self, saved, caplog):
    path, place = weights(saved, 3)
    flip(path, place)
    state, host = restore(saved)
    assert same(state, at(2)) and host == {'source': 2}
    assert path.relative_to(saved / '3').as_posix() in caplog.text and (saved / '3.corrupt').is_dir()
    assert restore(saved)[1] == {'source': 2}

  def test_without_the_seal_it_would_be_believed(self, saved, monkeypatch):
    """Negative control: it is our check that keeps this wrong weight out, not Orbax's."""
    flip(*weights(saved, 3))
    monkeypatch.setattr(integrity, 'verify', lambda path, seal: None)
    assert restore(saved)[1] == {'source': 2}           # the digests of arrays alone see it too
    shutil.move(saved / '3.corrupt', saved / '3')
    monkeypatch.setattr('train.saving.reading._check', lambda *args: None)
    state, _ = restore(saved)
    assert not same(state, at(3))

  def test_all_steps_damaged_is_not_a_start_from_scratch(self, saved):
    for step in (1, 2, 3):
      flip(*weights(saved, step))
    for _ in range(2):                                  # nor the next time
      with pytest.raises(CheckpointError, match='no step in it is whole') as refusal:
        restore(saved)
      assert refusal.value.id == 'checkpoint.none-whole' and '3' in str(refusal.value)

  def test_a_lost_seal_is_a_damaged_step(self, saved):
    (saved / '3' / 'integrity.json').unlink()
    assert restore(saved)[1] == {'source': 2} and (saved / '3.corrupt').is_dir()

  def test_what_is_not_a_step_is_ignored_and_reported(self, saved, caplog):
    (saved / '88888').mkdir()
    (saved / 'notes').mkdir()
    (saved / '5').write_text('a file')
    (saved / '04').mkdir()
    state, _ = restore(saved)
    assert same(state, at(3))
    for name in ('88888', 'notes', '5', '04'):
      assert (saved / name).exists() and str(saved / name) in caplog.text

  def test_an_empty_folder_with_the_name_of_a_step_alone_is_no_fresh_start(self, folder):
    (folder / '88888').mkdir(parents=True)
    with pytest.raises(CheckpointError, match='88888'):
      restore(folder)

  def test_leftovers_are_removed(self, saved):
    for name in ('4.saving', '1.deleting', '5.saving.orbax-checkpoint-tmp'):
      shutil.copytree(saved / '1', saved / name)
    assert restore(saved)[1] == {'source': 3}
    assert sorted(path.name for path in saved.iterdir()) == ['1', '2', '3']

  def test_saving_over_a_damaged_step_keeps_it_aside(self, saved):
    with Checkpoints(saved, keep=3) as saves:
      (saved / '3' / 'integrity.json').write_text('{}')
      saves.save(3, at(3), {'source': 'again'})
    assert restore(saved)[1] == {'source': 'again'} and (saved / '3.corrupt').is_dir()


class TestOtherStates:

  @pytest.mark.parametrize('change, told', [
      (lambda like: like.replace(params={**like.params, 'w': jax.ShapeDtypeStruct((16, 24), jnp.int32)}),
       'params.w is float32 there and int32 here'),
      (lambda like: like.replace(params={**like.params, 'w': jax.ShapeDtypeStruct((24, 16), jnp.float32)}),
       r'params.w is \[16, 24\] there and \[24, 16\] here'),
      (lambda like: like.replace(params={**like.params, 'more': jax.ShapeDtypeStruct((1,), jnp.float32)}),
       r'1 not in the checkpoint: params.more \(float32\[1\]\)'),
      (lambda like: like.replace(opt_state=()), r'7 only in the checkpoint: opt_state'),
      (lambda like: like.replace(key=jax.eval_shape(lambda: jax.random.key(0, impl='rbg'))),
       'key is key<fry> there and key<rbg> here'),
  ])
  def test_a_state_of_another_kind_is_refused_and_nothing_is_renamed(self, saved, change, told):
    with pytest.raises(CheckpointError, match=told):
      restore(saved, change(jax.eval_shape(new)))
    assert sorted(path.name for path in saved.iterdir()) == ['1', '2', '3']

  def test_a_newer_format_is_refused(self, saved):
    seal = json.loads((saved / '3' / 'integrity.json').read_text())['seal'] | {'format': 2}
    (saved / '3' / 'integrity.json').write_text(json.dumps({'seal': seal, 'sha256': integrity._own(seal)}))
    with pytest.raises(CheckpointError, match='format 2'):
      restore(saved)
    assert (saved / '3').is_dir()


class TestKeeping:

  def test_the_newest_are_kept_and_every_nth(self, folder):
    with Checkpoints(folder, keep=2, keep_every=4) as saves:
      for step in range(1, 8):
        saves.save(step, at(1), {})
        saves.wait()
      assert saves.steps() == [4, 6, 7]
    assert sorted(path.name for path in folder.iterdir()) == ['4', '6', '7']

  def test_no_step_is_deleted_before_a_newer_one_is_verified(self, saved, monkeypatch):
    monkeypatch.setattr(checkpoint.writing.integrity, 'write', lambda *args: (_ for _ in ()).throw(OSError('cut off')))
    with Checkpoints(saved, keep=1, pauses=()) as saves:
      saves.save(4, at(4), {})
      with pytest.raises(StorageError):
        saves.wait()
      assert saves.steps() == [1, 2, 3]

  def test_a_step_that_is_there_is_not_saved_again(self, saved):
    before = (saved / '3' / 'integrity.json').stat().st_mtime_ns
    with Checkpoints(saved) as saves:
      assert saves.save(3, at(3), {})
      assert not saves.busy
    assert (saved / '3' / 'integrity.json').stat().st_mtime_ns == before

  def test_a_save_that_would_pile_up_is_skipped_loudly(self, folder, monkeypatch, caplog):
    go_on = threading.Event()
    write = checkpoint.writing.write
    monkeypatch.setattr(checkpoint.writing, 'write', lambda *args: (go_on.wait(20), write(*args)))
    with Checkpoints(folder) as saves:
      assert saves.save(1, at(1), {})
      assert not saves.save(2, at(2), {}) and not saves.save(3, at(3), {})
      assert 'step 2 is not saved' in caplog.text and len(threading.enumerate()) < 50
      go_on.set()
      saves.wait()
      assert saves.save(4, at(4), {})
    assert restore(folder)[0].step == 4


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')      # Orbax's writers, cut off
class TestStorage:

  @contextmanager
  def files_of_at_most(self, size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
      yield
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

  def test_a_failed_save_is_tried_again_then_raised_and_leaves_nothing(self, saved, caplog):
    before = sorted(saved.rglob('*'))
    with Checkpoints(saved, keep=3, pauses=(0.0, 0.0)) as saves:
      with self.files_of_at_most(1000):
        saves.save(4, at(4), {})
        with pytest.raises(StorageError, match='3 tries failed') as failure:
          saves.wait()
      assert failure.value.exit_code == 74 and failure.value.id == 'checkpoint.save-failed'
      assert caplog.text.count('could not be saved') == 2
      assert sorted(saved.rglob('*')) == before
      saves.check()                                     # said once
      assert saves.save(4, at(4), {})                   # and when there is room again, it goes on
    assert same(restore(saved)[0], at(4))

  def test_a_hiccup_costs_nothing(self, folder, monkeypatch, caplog):
    write, failures = checkpoint.writing.write, iter([OSError('hiccup')])
    monkeypatch.setattr(checkpoint.writing, 'write',
                        lambda *args: write(*args) if (error := next(failures, None)) is None else fail(error))
    with Checkpoints(folder, pauses=(0.0,)) as saves:
      saves.save(1, at(1), {})
    assert same(restore(folder)[0], at(1)) and 'hiccup' in caplog.text

  def test_a_failure_is_seen_by_the_next_check_and_the_next_save(self, folder, monkeypatch):
    monkeypatch.setattr(checkpoint.writing, 'write', lambda *args: fail(OSError('no')))
    with Checkpoints(folder, pauses=()) as saves:
      for call in (saves.check, lambda: saves.save(2, at(2), {})):
        saves.save(1, at(1), {})
        saves.thread.join()
        with pytest.raises(StorageError, match='1 tries failed'):
          call()

  def test_too_little_room_is_said_at_the_start_and_at_a_save(self, saved):
    with pytest.raises(StorageError, match='must stay free') as refusal:
      restore(saved, reserve=10**18)
    assert refusal.value.id == 'store.full'
    with Checkpoints(saved, reserve=10**18, pauses=()) as saves:
      saves.save(4, at(4), {})
      with pytest.raises(StorageError, match='must stay free'):
        saves.wait()
    assert restore(saved)[1] == {'source': 3}

  @pytest.mark.parametrize('call', ['pathlib.Path.read_bytes', 'train.saving.integrity._hash'])
  def test_what_may_not_be_read_is_no_damage(self, saved, monkeypatch, call):
    monkeypatch.setattr(call, lambda *args, **kwargs: fail(PermissionError(13, 'Permission denied', 'it')))
    with pytest.raises(StorageError, match='Permission denied'):
      restore(saved)
    assert sorted(path.name for path in saved.iterdir()) == ['1', '2', '3']

  def test_whole_files_that_cannot_be_read_are_no_damage(self, saved, monkeypatch):
    monkeypatch.setattr('train.saving.arrays.read', lambda *args: fail(MemoryError('no memory')))
    with pytest.raises(CheckpointError, match='no memory') as refusal:
      restore(saved)
    assert refusal.value.id == 'checkpoint.unreadable' and (saved / '3').is_dir()

  def test_an_old_step_that_cannot_be_deleted_costs_nothing(self, saved, monkeypatch, caplog):
    monkeypatch.setattr(shelf, 'remove', lambda path: fail(OSError('busy')))
    with Checkpoints(saved, keep=1) as saves:
      saves.save(4, at(4), {'source': 4})
    assert 'busy' in caplog.text and sorted(path.name for path in saved.iterdir()) == ['1', '2', '3', '4']

  def test_a_file_is_no_folder(self, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(StorageError):
      Checkpoints(tmp_path / 'file')

  def test_a_folder_that_goes_away_is_told(self, saved):
    with Checkpoints(saved, pauses=()) as saves:
      shutil.rmtree(saved)
      saves.save(4, at(4), {})
      with pytest.raises(StorageError, match='step 4'):
        saves.wait()

  def test_an_error_of_the_training_is_not_hidden_by_one_of_the_last_save(self, folder, monkeypatch, caplog):
    monkeypatch.setattr(checkpoint.writing, 'write', lambda *args: fail(OSError('no')))
    with pytest.raises(ZeroDivisionError), Checkpoints(folder, pauses=()) as saves:
      saves.save(1, at(1), {})
      raise ZeroDivisionError
    assert any(record.levelno == logging.ERROR and 'save-failed' in record.getMessage() for record in caplog.records)


def fail(error: Exception):
  raise error


def test_a_look_does_not_need_the_folder(tmp_path):
  assert shelf.look(tmp_path / 'nowhere') == shelf.Shelf()
