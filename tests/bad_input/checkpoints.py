"""Checkpoints that are not what is asked for. Damage of every kind stands in tests/train/saving and tests/campaign."""

import json
from pathlib import Path

from tests.bad_input.given import batches
from tests.bad_input.table import Table

case = Table()


def state(width: int = 4, dtype: str = 'float32'):
  """A small state to save."""
  import jax
  import jax.numpy as jnp

  from train.types import State
  return State(jnp.zeros((), jnp.int32), {'w': jnp.ones((width, 2), dtype)}, (), jax.random.key(0))


def saved(folder: Path) -> Path:
  """A folder with two saves of it."""
  from train.checkpoint import Checkpoints
  with Checkpoints(folder / 'saves') as saves:
    for step in (1, 2):
      saves.save(step, state(), {})
      saves.wait()
  return folder / 'saves'


def restore(folder: Path, like=None):
  """What is saved there, as `like`."""
  from train.checkpoint import Checkpoints
  with Checkpoints(folder) as saves:
    return saves.restore(like or state())


@case(33, 'checkpoint.none-whole', 'no step in it is whole')
def all_saves_are_damaged(folder):
  for path in saved(folder).rglob('integrity.json'):
    path.write_text('{')
  restore(folder / 'saves')


@case(34, 'checkpoint.none-whole', '88888')
def an_empty_folder_with_the_name_of_a_step(folder):
  (folder / 'saves' / '88888').mkdir(parents=True)
  restore(folder / 'saves')


@case(37, 'checkpoint.other-tree', 'params.w is float32 there and int32 here')
def a_checkpoint_of_another_dtype(folder):
  restore(saved(folder), state(dtype='int32'))


@case(37, 'checkpoint.other-tree', 'params.w is [4, 2] there and [5, 2] here')
def a_checkpoint_of_another_shape(folder):
  restore(saved(folder), state(width=5))


@case(39, 'checkpoint.newer-format', 'format 99', 'the version of Athanor that wrote it')
def a_checkpoint_of_a_newer_version(folder):
  import hashlib
  for path in saved(folder).rglob('integrity.json'):
    body = json.loads(path.read_text())['seal'] | {'format': 99}
    sha = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(',', ':')).encode()).hexdigest()
    path.write_text(json.dumps({'sha256': sha, 'seal': body}))
  restore(folder / 'saves')


@case(40, 'data.other-pipeline', 'length was 16, is 32')
def the_position_of_another_pipeline(folder):
  (folder / 'again').mkdir()
  batches(folder / 'again', length=32).load(batches(folder).save())


@case(41, 'checkpoint.save-failed', 'step 1', 'mend the disk')
def a_folder_that_is_removed_while_it_is_in_use(folder):
  import shutil

  from train.checkpoint import Checkpoints
  with Checkpoints(folder / 'saves', pauses=()) as saves:
    shutil.rmtree(folder / 'saves')
    (folder / 'saves').write_text('in its place')
    saves.save(1, state(), {})
    saves.wait()
