"""Resuming at every step of a short run equals never having stopped; with anything forgotten it does not.

Once for a small training that has everything that can be forgotten (dropout, a schedule, moments) and in which a life
costs little, and once for a run as people launch it.
"""

import os
from pathlib import Path

import pytest

from tests.campaign import real
from tests.campaign.resume import FORGET, Live, Straight, resumed, straight_run
from tests.campaign.trainer import live

STEPS = 12


@pytest.fixture(scope='module')
def straight(module_path) -> Straight:
  return straight_run(live, module_path / 'small')


def test_resuming_at_every_step_changes_no_bit(tmp_path, straight):
  assert resumed(live, straight, tmp_path, range(1, STEPS)) == {}


@pytest.mark.parametrize('what', FORGET)
def test_whatever_is_forgotten_is_seen(tmp_path, straight, what):
  """Negative controls: the law above does tell a resume that lost something."""
  assert set(resumed(live, straight, tmp_path, (8,), FORGET[what])) == {8}


@pytest.fixture(scope='module')
def launch(module_path) -> Live:
  """Launches a real run; folders after the first get what it is made from out of that."""
  def launch(folder: Path) -> Path:
    template = module_path / 'real'
    if not folder.exists() and template.exists():
      real.parents(template, folder)
    return real.live(folder)

  return launch


@pytest.fixture(scope='module')
def straight_launch(module_path, launch) -> Straight:
  return straight_run(launch, module_path / 'real')


def test_a_real_run_that_is_resumed_changes_no_bit(tmp_path, straight_launch, launch):
  assert resumed(launch, straight_launch, tmp_path, (3,)) == {}


def test_what_a_real_run_forgets_is_seen(tmp_path, straight_launch, launch):
  assert set(resumed(launch, straight_launch, tmp_path, (3,), FORGET['iterator'])) == {3}


@pytest.mark.campaign
@pytest.mark.parametrize('what', [None, 'iterator', 'optimizer', 'parameters'])
def test_a_real_run_resumed_at_every_step(tmp_path, straight_launch, launch, what):
  stops = range(1 if what is None else 3, real.STEPS)       # the first save, which is gone back to, is of step 2
  found = resumed(launch, straight_launch, tmp_path, stops, what and FORGET[what])
  assert set(found) == (set() if what is None else set(stops))


@pytest.mark.campaign
def test_a_long_run_resumed_at_every_step(tmp_path):
  steps = int(os.environ.get('ATHANOR_STEPS', 60))

  def long(folder: Path) -> Path:
    return live(folder, steps=steps)

  assert resumed(long, straight_run(long, tmp_path / 'straight'), tmp_path, range(1, steps)) == {}
