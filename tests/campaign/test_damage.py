"""Whatever happens to the files of a checkpoint, no wrong weight is ever given back, and the damaged file is named."""

import os
import random
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.errors import CheckpointError
from tests.campaign.damage import OPERATORS, copy, damage
from train.checkpoint import Checkpoints
from train.saving import integrity, reading
from train.saving.leaves import bits, named
from train.types import State

STEPS = (1, 2, 3)


@jax.jit
def at(step: int) -> State:
  """A state that is a function of the step."""
  key = jax.random.fold_in(jax.random.key(0), step)
  params = {'w': jax.random.normal(key, (40, 50)), 'half': jax.random.normal(key, (30,), jnp.bfloat16),
            'ones': jnp.ones(64)}
  return State(jnp.int32(step), params, {'mu': jax.tree.map(lambda x: x * step, params), 'count': jnp.int32(step)}, key)


@pytest.fixture(scope='module')
def whole(module_path) -> Path:
  folder = module_path / 'checkpoints'
  with Checkpoints(folder, keep=len(STEPS)) as saves:
    for step in STEPS:
      saves.save(step, at(step), {'source': {'next': step}})
      saves.wait()
  return folder


def values(state: State) -> dict[str, bytes]:
  return {name: np.asarray(leaf).tobytes() for name, leaf in bits(named(state)).items()}


def trial(whole: Path, target: Path, seed: int, caplog) -> str:
  """Damages a copy once or twice and restores from it: 'newest', 'older', 'refused', or what went wrong."""
  rng = random.Random(seed)
  folder = copy(whole, target)
  done = [damage(folder, rng) for _ in range(rng.choice((1, 1, 2)))]
  changed = [path.relative_to(folder) for _, paths in done for path in paths]
  caplog.clear()
  try:
    with Checkpoints(folder) as saves:
      state, host = saves.restore(jax.eval_shape(at, 0))
  except CheckpointError as refusal:
    told, outcome = str(refusal), 'refused'
  else:
    told, step = caplog.text, int(state.step)
    if step not in STEPS or values(state) != values(at(step)) or host != {'source': {'next': step}}:
      return f'seed {seed}: WRONG WEIGHTS after {done}'
    outcome = 'newest' if step == STEPS[-1] else 'older'
  finally:
    shutil.rmtree(target)
  bad = [path for path in changed if path.parts[0] == '3']
  if outcome != 'newest' and not any(Path(*path.parts[1:]).as_posix() in told for path in bad):
    return f'seed {seed}: {done} is not named in {told!r}'
  return outcome


def trials(whole: Path, tmp_path: Path, count: int, caplog) -> dict[str, int]:
  first = int(os.environ.get('ATHANOR_SEED', random.SystemRandom().randrange(10**6)))
  outcomes = [trial(whole, tmp_path / 'damaged', first + index, caplog) for index in range(count)]
  found = {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)}
  print(f'\n{count} damages from seed {first}: {found}')
  return found


def test_no_damage_gives_wrong_weights(whole, tmp_path, caplog):
  found = trials(whole, tmp_path, 100, caplog)
  assert set(found) <= {'newest', 'older', 'refused'} and found['older'] > 10 and found['newest'] > 10


def test_without_verification_it_would(whole, tmp_path, monkeypatch):
  """Negative control: flipped bits do give wrong weights once nothing is verified but what Orbax verifies."""
  monkeypatch.setattr(integrity, 'verify', lambda folder, seal: None)
  monkeypatch.setattr(reading, '_check', lambda *args: None)
  for seed in range(5):
    folder = copy(whole, tmp_path / str(seed))
    data = max((path for path in (folder / '3').rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)
    OPERATORS['flip'](data, random.Random(seed), folder)
    with Checkpoints(folder) as saves:
      state, _ = saves.restore(jax.eval_shape(at, 0))
    assert int(state.step) == 3 and values(state) != values(at(3))


@pytest.mark.campaign
def test_no_damage_of_many_gives_wrong_weights(whole, tmp_path, caplog):
  found = trials(whole, tmp_path, int(os.environ.get('ATHANOR_DAMAGES', 2000)), caplog)
  assert set(found) <= {'newest', 'older', 'refused'}
