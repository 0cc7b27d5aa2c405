"""A training that is killed at any moment, again and again, is to the bit one that was left alone."""

import os
import random
import signal
from pathlib import Path

import jax
import pytest

from model.errors import PREEMPTED
from tests.campaign import kills
from tests.campaign.resume import difference
from tests.campaign.trainer import live
from train.checkpoint import Checkpoints
from train.ledger import LEDGER, lives
from train.saving.shelf import look

PHASES = ('write', 'step', 'seal', 'save', 'name', 'restore', 'retire')
STEPS = 32


def run(folder: Path) -> Path:
  """One life: slow enough to be killed inside anything."""
  return live(folder, STEPS, every=2, pause=0.01)


def forgetful(folder: Path) -> Path:
  """The same, but a resume forgets the moments: what the campaign is there to find."""
  real = Checkpoints.restore

  def restore(self, like):
    found = real(self, like)
    return found and (found[0].replace(opt_state=jax.tree.map(lambda x: x * 0, found[0].opt_state)), found[1])

  Checkpoints.restore = restore
  return run(folder)


@pytest.fixture(scope='module')
def straight(module_path) -> Path:
  """The folder of a training that was left alone."""
  with kills.Zygote('tests.campaign.test_kill:run') as zygote:
    assert zygote.live(module_path, None)[0] == 0
  return module_path


def killed(folder: Path, function: str, count: int, phases: tuple[str, ...] = PHASES) -> kills.Campaign:
  seed = int(os.environ.get('ATHANOR_SEED', random.SystemRandom().randrange(10**6)))
  found = kills.campaign(f'tests.campaign.test_kill:{function}', folder, count, seed, phases)
  print(f'\n{function}: seed {seed}, {found.killed.total()} kills in {found.lives} lives, ended with {found.ended}; '
        f'phases open at death: {dict(found.killed)}')
  return found


def test_killed_and_left_alone_are_equal_to_the_bit(tmp_path, straight):
  found = killed(tmp_path, 'run', len(PHASES))
  assert found.killed.total() == len(PHASES) and found.ended == 0
  assert difference(straight, tmp_path, STEPS) == ''


def test_a_resume_that_forgets_is_found(tmp_path, straight):
  """Negative control: such a life ends itself when a replayed step differs, or its ledger is another."""
  found = killed(tmp_path, 'forgetful', 1, ('retire',))
  assert found.killed.total() == 1
  assert found.ended == 70 or difference(straight, tmp_path, STEPS)


def asked_to_leave(folder: Path, straight: Path, phases: tuple[str, ...]) -> None:
  """SIGTERM in each of the phases in turn, then a life to the end: each leaves with 75, and nothing is lost."""
  with kills.Zygote('tests.campaign.test_kill:run') as zygote:
    steps = []
    for phase in phases:
      status, _ = zygote.live(folder, kills.Kill(phase, 1, 0.5, signal.SIGTERM))
      assert status == PREEMPTED, (phase, status)
      steps.append(max(look(folder / 'checkpoints').seals))
      assert max(lives(folder / LEDGER)[-1].steps) == steps[-1]       # saved after its very last step
    assert zygote.live(folder, None)[0] == 0
  assert steps == sorted(set(steps)) and difference(straight, folder, STEPS) == ''


def test_a_run_that_is_told_to_leave_saves_its_last_step(tmp_path, straight):
  asked_to_leave(tmp_path, straight, ('restore', 'step'))


@pytest.mark.campaign
def test_told_to_leave_in_every_phase(tmp_path, straight):
  asked_to_leave(tmp_path, straight, PHASES)


@pytest.mark.campaign
def test_many_kills(tmp_path, straight):
  count = int(os.environ.get('ATHANOR_KILLS', 35))
  done, index = 0, 0
  while done < count:
    found = killed(tmp_path / str(index), 'run', min(len(PHASES), count - done))
    assert found.ended == 0 and found.killed and difference(straight, tmp_path / str(index), STEPS) == ''
    done, index = done + found.killed.total(), index + 1
  print(f'{done} kills, 0 differences')
