"""What was damaged or is of another kind is not believed: the step before is taken, or a refusal says what is wrong."""

import json
import shutil

import jax
import jax.numpy as jnp
import pytest

from model.errors import CheckpointError
from tests.data.noticed import flip
from tests.train.saving.saves import at, new, restore, same, weights
from train.checkpoint import Checkpoints
from train.saving import integrity


def test_a_flipped_bit_is_not_believed(saved, caplog):
  path, place = weights(saved, 3)
  flip(path, place)
  state, host = restore(saved)
  assert same(state, at(2)) and host == {'source': 2}
  assert path.relative_to(saved / '3').as_posix() in caplog.text and (saved / '3.corrupt').is_dir()
  assert restore(saved)[1] == {'source': 2}


def test_without_the_seal_it_would_be_believed(saved, monkeypatch):
  """Negative control: it is our check that keeps this wrong weight out, not Orbax's."""
  flip(*weights(saved, 3))
  monkeypatch.setattr(integrity, 'verify', lambda path, seal: None)
  assert restore(saved)[1] == {'source': 2}           # the digests of arrays alone see it too
  shutil.move(saved / '3.corrupt', saved / '3')
  monkeypatch.setattr('train.saving.reading._check', lambda *args: None)
  state, _ = restore(saved)
  assert not same(state, at(3))


def test_all_steps_damaged_is_not_a_start_from_scratch(saved):
  for step in (1, 2, 3):
    flip(*weights(saved, step))
  for _ in range(2):                                  # nor the next time
    with pytest.raises(CheckpointError, match='no step in it is whole') as refusal:
      restore(saved)
    assert refusal.value.id == 'checkpoint.none-whole' and '3' in str(refusal.value)


def test_a_lost_seal_is_a_damaged_step(saved):
  (saved / '3' / 'integrity.json').unlink()
  assert restore(saved)[1] == {'source': 2} and (saved / '3.corrupt').is_dir()


def test_what_is_not_a_step_is_ignored_and_reported(saved, caplog):
  (saved / '88888').mkdir()
  (saved / 'notes').mkdir()
  (saved / '5').write_text('a file')
  (saved / '04').mkdir()
  state, _ = restore(saved)
  assert same(state, at(3))
  for name in ('88888', 'notes', '5', '04'):
    assert (saved / name).exists() and str(saved / name) in caplog.text


def test_an_empty_folder_with_the_name_of_a_step_alone_is_no_fresh_start(folder):
  (folder / '88888').mkdir(parents=True)
  with pytest.raises(CheckpointError, match='88888'):
    restore(folder)


def test_leftovers_are_removed(saved):
  for name in ('4.saving', '1.deleting', '5.saving.orbax-checkpoint-tmp'):
    shutil.copytree(saved / '1', saved / name)
  assert restore(saved)[1] == {'source': 3}
  assert sorted(path.name for path in saved.iterdir()) == ['1', '2', '3']


def test_saving_over_a_damaged_step_keeps_it_aside(saved):
  with Checkpoints(saved, keep=3) as saves:
    (saved / '3' / 'integrity.json').write_text('{}')
    saves.save(3, at(3), {'source': 'again'})
  assert restore(saved)[1] == {'source': 'again'} and (saved / '3.corrupt').is_dir()


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
def test_a_state_of_another_kind_is_refused_and_nothing_is_renamed(saved, change, told):
  with pytest.raises(CheckpointError, match=told):
    restore(saved, change(jax.eval_shape(new)))
  assert sorted(path.name for path in saved.iterdir()) == ['1', '2', '3']


def test_a_newer_format_is_refused(saved):
  seal = json.loads((saved / '3' / 'integrity.json').read_text())['seal'] | {'format': 2}
  (saved / '3' / 'integrity.json').write_text(json.dumps({'seal': seal, 'sha256': integrity._own(seal)}))
  with pytest.raises(CheckpointError, match='format 2'):
    restore(saved)
  assert (saved / '3').is_dir()
