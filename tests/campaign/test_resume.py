"""Resuming at every step of a short run equals never having stopped; with anything forgotten it does not."""

import os

import pytest

from tests.campaign.resume import FORGET, resumed
from tests.campaign.trainer import live

STEPS = 12


def test_resuming_at_every_step_changes_no_bit(tmp_path):
  assert resumed(live, tmp_path, STEPS, range(1, STEPS)) == {}


@pytest.mark.parametrize('what', FORGET)
def test_whatever_is_forgotten_is_seen(tmp_path, what):
  """Negative controls: the law above does tell a resume that lost something."""
  found = resumed(lambda folder: live(folder, every=2), tmp_path, STEPS, (3, 8), FORGET[what])
  assert set(found) == {3, 8}


@pytest.mark.campaign
def test_a_long_run_resumed_at_every_step(tmp_path):
  steps = int(os.environ.get('ATHANOR_STEPS', 60))
  assert resumed(lambda folder: live(folder, steps=steps), tmp_path, steps, range(1, steps)) == {}
