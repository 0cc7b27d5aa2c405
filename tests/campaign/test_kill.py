"""A training that is killed at any moment, again and again, is to the bit one that was left alone."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from model.errors import PREEMPTED
from tests.campaign import kills, real
from tests.campaign.resume import difference
from train.checkpoint import Checkpoints
from train.ledger import LEDGER, Ledger, lives
from train.saving.shelf import look

PHASES = ('write', 'step', 'seal', 'save', 'name', 'restore', 'retire')
STEPS = 32


def slow(folder: Path, config: str) -> None:
  """One life of a real run, slow enough to be killed inside anything."""
  write = Ledger.write

  def slowly(self, *args):
    write(self, *args)
    time.sleep(0.02)

  Ledger.write = slowly
  real.live(folder, STEPS, every=2, config=config)


def run(folder: Path) -> None:
  """One that learns from text."""
  slow(folder, real.TINY)


def policy(folder: Path) -> None:
  """One that learns from rewards: four batches an iteration, so that every other save is in the middle of one."""
  slow(folder, real.POLICY)


def forgetful(folder: Path) -> None:
  """The same, but a resume forgets the moments: what the campaign is there to find."""
  restore = Checkpoints.restore

  def without_moments(self, like):
    found = restore(self, like)
    return found and (found[0].replace(opt_state=jax.tree.map(lambda x: x * 0, found[0].opt_state)), found[1])

  Checkpoints.restore = without_moments
  run(folder)


@pytest.fixture(scope='module')
def zygote() -> Iterator[kills.Zygote]:
  with kills.Zygote('tests.campaign.test_kill') as zygote:
    yield zygote


@pytest.fixture(scope='module')
def straight(module_path, zygote) -> Path:
  """The folder of a training that was left alone, and of all that it was made from."""
  assert zygote.live('run', module_path)[0] == 0
  return module_path


def differ(straight: Path, folder: Path) -> str:
  return difference(real.made(straight), real.made(folder))


@pytest.fixture
def killed(straight, zygote):
  """Kills so many lives of a function, in a folder that has all the run needs, made in that of a `template`."""
  def killed(folder: Path, function: str, count: int, phases: tuple[str, ...] = PHASES,
             template: Path = straight) -> kills.Campaign:
    real.parents(template, folder)
    seed = int(os.environ.get('ATHANOR_SEED', random.SystemRandom().randrange(10**6)))
    found = kills.campaign(zygote, function, folder, count, seed, phases)
    print(f'\n{function}: seed {seed}, {found.killed.total()} kills in {found.lives} lives, ended with {found.ended}; '
          f'phases open at death: {dict(found.killed)}')
    return found
  return killed


def test_killed_and_left_alone_are_equal_to_the_bit(tmp_path, straight, killed):
  found = killed(tmp_path, 'run', len(PHASES))
  assert found.killed.total() == len(PHASES) and found.ended == 0
  assert differ(straight, tmp_path) == ''


def test_a_resume_that_forgets_is_found(tmp_path, straight, killed):
  """Negative control: such a life ends itself when a replayed step differs, or its ledger is another."""
  found = killed(tmp_path, 'forgetful', 1, ('retire',))
  assert found.killed.total() == 1
  assert found.ended == 70 or differ(straight, tmp_path)


@pytest.fixture
def asked_to_leave(straight, zygote):
  """SIGTERM in each of the phases in turn, then a life to the end: each leaves with 75, and nothing is lost."""
  def asked(folder: Path, phases: tuple[str, ...]) -> None:
    real.parents(straight, folder)
    steps = []
    for phase in phases:
      status, _ = zygote.live('run', folder, kills.Kill(phase, 1, 0.0, signal.SIGTERM))
      assert status == PREEMPTED, (phase, status)
      steps.append(max(look(real.made(folder) / 'checkpoints').seals))
      assert max(lives(real.made(folder) / LEDGER)[-1].steps) == steps[-1]       # saved after its very last step
    assert zygote.live('run', folder)[0] == 0
    assert steps == sorted(set(steps)) and differ(straight, folder) == ''
  return asked


def test_a_run_that_is_told_to_leave_saves_its_last_step(tmp_path, asked_to_leave):
  asked_to_leave(tmp_path, ('step',))


@pytest.mark.campaign
def test_told_to_leave_in_every_phase(tmp_path, asked_to_leave):
  asked_to_leave(tmp_path, PHASES)


@pytest.mark.campaign
def test_many_kills_of_a_policy(tmp_path, module_path, killed, zygote):
  """Its rollouts, price, critic and place in an iteration come back as well."""
  alone = module_path / 'policy'
  assert zygote.live('policy', alone)[0] == 0
  found = killed(tmp_path, 'policy', 2 * len(PHASES), template=alone)
  assert found.ended == 0 and found.killed and differ(alone, tmp_path) == ''


@pytest.mark.campaign
def test_many_kills(tmp_path, straight, killed):
  count = int(os.environ.get('ATHANOR_KILLS', 35))
  done, index, phases = 0, 0, Counter()
  while done < count:
    found = killed(tmp_path / str(index), 'run', min(len(PHASES), count - done))
    assert found.ended == 0 and found.killed and differ(straight, tmp_path / str(index)) == ''
    done, index = done + found.killed.total(), index + 1
    phases += found.killed
  print(f'{done} kills, 0 differences; phases open at death: {dict(phases)}')
