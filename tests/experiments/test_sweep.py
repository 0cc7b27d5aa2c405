"""Sweeps: every trial is made once, a diverging one does not stop the others, and the files that are written."""

import json
import math
from pathlib import Path
from types import ModuleType

import pytest
from absl.testing import flagsaver

from experiments import command, sweep
from experiments.laws import PowerLaw, fit_power_law
from experiments.load import load_module
from experiments.overrides import override
from experiments.pictures import scaling
from experiments.trials import Trial
from model.errors import ConfigError

ROOT = Path(__file__).parents[2]
TOYS = ROOT / 'tests' / 'toys'
TRIALS = "grid(vary('minutes', 30, 40), vary('rise', 1.0, 2.0, 4.0, 10.0))"


@pytest.fixture(autouse=True)
def toys(monkeypatch):
  monkeypatch.syspath_prepend(str(TOYS))


def go(folder: Path, trials: str, *argv: str, more: str = '') -> Path | None:
  """Runs the sweep as the program does, and gives its folder."""
  path = folder / 'breads.py'
  path.write_text('from experiments.bakery import get_config\nfrom experiments.grid import *\n'
                  f'def sweep():\n  return {trials}\n{more}')
  with flagsaver.flagsaver():
    sweep.main(command.parse(['sweep', f'--config={path}', f'--runs={folder / "runs"}', *argv]))
  return next((folder / 'runs').glob('bread-sweep-*'), None)


def test_makes_every_trial_and_writes_them_down(tmp_path, capsys):
  folder = go(tmp_path, TRIALS)
  trials = json.loads((folder / 'sweep.json').read_text())
  assert [trial['changes'] for trial in trials[:2]] == [{'minutes': 30, 'rise': 1.0}, {'minutes': 30, 'rise': 2.0}]
  assert [trial['metrics'] and trial['metrics']['heldout_loss'] for trial in trials] == [2, 1, 3, None, 1, 0, 2, None]
  assert trials[0]['metrics']['loss'] == 9.0 and trials[0]['metrics']['step'] == 2
  said = capsys.readouterr().out
  assert said.count('diverged') == 2 and 'trial 8 of 8: minutes=40 rise=10' in said
  assert (folder / 'sweep.png').stat().st_size > 5000 and '<svg' in (folder / 'sweep.svg').read_text()


def test_a_second_time_only_what_diverged_is_tried_again(tmp_path):
  go(tmp_path, TRIALS)
  made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('bread.json')}
  assert len(made) == 6
  go(tmp_path, TRIALS)
  assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('bread.json')} == made


def test_settings_from_the_command_line_hold_for_every_trial(tmp_path):
  go(tmp_path, "vary('rise', 1.0, 2.0)", '--config.minutes=35')
  assert {json.loads(path.read_text())[1] for path in tmp_path.rglob('bread.json')} == {35}


def test_the_file_may_draw_for_itself(tmp_path):
  folder = go(tmp_path, "vary('rise', 1.0, 2.0)", more='def draw(trials, folder):\n'
              '  (folder / "own.txt").write_text(str([trial.metrics["heldout_loss"] for trial in trials]))\n')
  assert (folder / 'own.txt').read_text() == '[1.0, 0.0]' and not (folder / 'sweep.png').exists()


@pytest.mark.parametrize('trials, argv, id', [
    ("vary('ries', 1.0)", (), 'config.unknown-field'), ("vary('rise', 1.0, 'x')", (), 'config.wrong-type'),
    ("vary('rise', 1.0, 1.0)", (), 'sweep.same-twice'), ('[]', (), 'sweep.same-twice'),
    ("vary('threads', 1, 2)", (), 'sweep.same-twice'), ("vary('rise', 1.0, 1 / 0)", (), 'config.file-failed'),
])
def test_a_mistake_in_any_trial_is_told_before_the_first_runs(trials, argv, id, tmp_path):
  with pytest.raises(ConfigError) as caught:
    go(tmp_path, trials, *argv)
  assert caught.value.id == id and not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('argv, id', [(('--y=losss',), 'sweep.no-metric'), (('--x=motto',), 'sweep.no-axis')])
def test_an_axis_that_nothing_lies_on_is_told(argv, id, tmp_path):
  with pytest.raises(ConfigError) as caught:
    go(tmp_path, "vary('rise', 1.0, 2.0)", *argv)
  assert caught.value.id == id


def test_the_picture_of_a_scaling_law(tmp_path):
  compute, loss = [1e12, 1e13, 1e14, 1e15], [4.1, 3.2, 2.7, 2.4]
  scaling(tmp_path, compute, loss, ['1M', '3M', '10M', '30M'], fit_power_law(compute, loss))
  assert (tmp_path / 'sweep.png').stat().st_size > 5000 and 'FLOPs' in (tmp_path / 'sweep.svg').read_text()


def pretended(path: str, outcome) -> tuple[ModuleType, list[Trial]]:
  """An experiment file of sweeps, and its trials as if they were done, with the held-out loss that `outcome` gives."""
  module = load_module(str(ROOT / path))
  base = module.get_config()
  things = [(changes, override(base, changes)) for changes in module.sweep()]
  return module, [Trial(changes, thing, Path(), {'heldout_loss': outcome(thing)}) for changes, thing in things]


def test_the_scaling_sweep_fits_the_law_that_its_trials_follow(tmp_path):
  truth = PowerLaw(1.5, 3.0 * 1e13**0.25, 0.25, 0.0)
  flops = load_module(str(ROOT / 'experiments/sweeps/scaling.py')).compute
  module, trials = pretended('experiments/sweeps/scaling.py', lambda thing: float(truth(flops(thing))))
  module.draw(trials, tmp_path)
  law = json.loads((tmp_path / 'law.json').read_text())
  assert law['exponent'] == pytest.approx(0.25, rel=0.02) and law['floor'] == pytest.approx(1.5, rel=0.05)
  assert (tmp_path / 'sweep.png').exists()


def test_the_sweep_of_widths_reads_off_the_best_rates(tmp_path):
  def outcome(thing):
    best = 0.02 if thing.model.mup else 0.02 * 32 / thing.model.width
    return 4 + (math.log(thing.optimizer.rule.lr) - math.log(best)) ** 2

  module, trials = pretended('experiments/sweeps/mup.py', outcome)
  module.draw(trials, tmp_path)
  best = json.loads((tmp_path / 'best.json').read_text())
  assert list(best['mup'].values()) == pytest.approx([0.02, 0.02, 0.02])
  assert list(best['standard'].values()) == pytest.approx([0.02, 0.01, 0.005])
