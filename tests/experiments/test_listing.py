"""The listing of a folder of runs, and of the settings in which artifacts of one name differ."""

from contextlib import suppress
from pathlib import Path

import pytest
from absl.testing import flagsaver

from experiments import command, launch, listing
from model.errors import UserError

TOYS = Path(__file__).parents[1] / 'toys'


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
  """Three loaves, of which one was cut off."""
  monkeypatch.syspath_prepend(str(TOYS))
  monkeypatch.setenv('COLUMNS', '200')
  (tmp_path / 'bread.py').write_text('from experiments.bakery import get_config\n')
  for change in ((), ('--config.baked.heat=200',), ('--config.flour.grain=wheat', '--config.minutes=1')):
    with flagsaver.flagsaver():
      argv = ['launch', f'--config={tmp_path / "bread.py"}', f'--runs={tmp_path / "runs"}', *change]
      with suppress(KeyboardInterrupt):
        launch.main(command.parse(argv))
  return tmp_path / 'runs'


def lines(runs: Path, capsys, *argv: str) -> list[str]:
  capsys.readouterr()
  with flagsaver.flagsaver():
    assert listing.main(command.parse(['listing', f'--runs={runs}', *argv])) == 0
  return capsys.readouterr().out.splitlines()


def test_things_of_one_name_are_told_apart_by_their_settings(runs, capsys):
  told = [line for line in lines(runs, capsys, '--name=bread') if line.startswith('bread-')]
  assert len(told) == 6 and all('Bread' in line for line in told[:3])
  assert sum('cut off' in line for line in told) == 1 and sum(' made ' in line for line in told) == 2
  rows = told[3:]
  plain, cool, wheat = sorted(rows, key=lambda row: ('wheat' in row, 'heat=200' in row))       # begun in one second
  assert 'baked.heat=220.0' in plain and 'flour.grain=rye' in plain and 'minutes=40' in plain
  assert 'baked.heat=200.0' in cool and 'flour.grain=rye' in cool
  assert 'flour.grain=wheat' in wheat and 'minutes=1' in wheat
  assert not any('rise' in row or 'motto' in row for row in rows)


def test_all_that_lies_there_is_listed_and_a_broken_folder_too(runs, capsys):
  (runs / 'torn-0123456789').mkdir()
  (runs / 'torn-0123456789' / 'run.json').write_text('{"type": ')
  said = '\n'.join(lines(runs, capsys))
  assert said.count('Flour') == 2 and 'flour-' in said and 'cannot be read' in said
  assert all(folder.name in said for folder in runs.iterdir())


def test_nothing_to_list_is_said(tmp_path, runs, capsys):
  for argv, word in (([f'--runs={tmp_path / "none"}'], 'no such folder'), (['--name=cake'], 'use one of bread, flour')):
    with pytest.raises(UserError, match=word):
      lines(runs, capsys, *argv)
