"""What launching refuses, on the command line, in a file, in a run.json: one message each, and nothing is made."""

import pytest

from experiments.load import load
from experiments.overrides import override
from experiments.plan import plan
from model.errors import ConfigError, UserError
from tests.experiments.launching import ROOT, go, shell
from train.artifact import Store

REFUSED = [     # argv, id, words; {bread} is the experiment file, {tmp} a folder
    (['--cofnig={bread}'], 'config.unknown-flag', '--cofnig --config'),
    (['--cofnig.a=1'], 'config.unknown-flag', '--cofnig.a --config.a'),
    (['--config={bread}', '--config.minuets=3'], 'config.unknown-field', '--config.minuets minutes Bread'),
    (['--config={bread}', '--config.minutes'], 'config.no-value', '--config.minutes=VALUE'),
    (['--config={bread}', '--dry_run=perhaps'], 'config.bad-flag', '--dry_run perhaps'),
    (['{bread}'], 'config.stray-word', '--config={bread}'),
    ([], 'config.no-file', '--config'),
    (['--config={tmp}/none.py'], 'config.no-file', 'none.py'),
    (['--config={tmp}'], 'config.no-file', '{tmp}'),
    (['--config={tmp}/bread.txt'], 'config.no-file', 'run.json'),
    (['--config=experiments/quickstart/pretrian.py'], 'config.no-file', 'experiments/quickstart/pretrain.py'),
    (['--config={tmp}/made'], 'config.no-file', 'folder --config={tmp}/made/run.json'),
    (['--config={tmp}/made/lock.json'], 'config.not-an-artifact', 'dict run.json'),
    (['--config={tmp}/none/run.json'], 'store.unreadable', 'none/run.json'),
    (['--config={bread}', '--devices=8'], 'config.devices', '--dry_run'),
    (['--config={bread}', '--coordinator=127.0.0.1:1'], 'config.distributed', '--processes'),
    (['--config={bread}', '--coordinator=nowhere', '--processes=2', '--process=0'], 'config.distributed', 'HOST:PORT'),
    (['--config={bread}', '--coordinator=127.0.0.1:1', '--processes=2', '--process=2'], 'config.distributed', '0 to 1'),
]


@pytest.mark.parametrize('argv, id, words', REFUSED, ids=[' '.join(argv) or 'nothing' for argv, *_ in REFUSED])
def test_mistakes_on_the_command_line_are_told(argv, id, words, bread, tmp_path):
  (tmp_path / 'bread.txt').touch()
  (tmp_path / 'made').mkdir()
  for name in ('run.json', 'lock.json'):
    (tmp_path / 'made' / name).write_text('{}')
  fill = {'bread': bread, 'tmp': tmp_path}
  with pytest.raises(UserError) as caught:
    go(f'--runs={tmp_path / "runs"}', *(word.format(**fill) for word in argv))
  assert caught.value.id == id
  assert not [word for word in words.format(**fill).split() if word not in str(caught.value)], str(caught.value)
  assert not (tmp_path / 'runs').exists()


FILES = [       # the text of an experiment file, id, words
    ('def get_config(:\n', 'config.file-failed', 'broken.py:1'),
    ('x = 1\ny = x / 0\n', 'config.file-failed', 'broken.py:2 ZeroDivisionError'),
    ('from train.nothing import here\n', 'config.file-failed', 'broken.py:1 train.nothing'),
    ('def get_config():\n  return open("/nowhere/at/all")\n', 'config.file-failed', 'broken.py:2 FileNotFoundError'),
    ('def config(): pass\n', 'config.no-function', 'get_config()'),
    ('get_config = 3\n', 'config.no-function', 'get_config()'),
    ('def get_config(): return {"lr": 3}\n', 'config.not-an-artifact', 'dict get_config()'),
    ('from experiments.bakery import *\ndef get_config():\n  return Bread(name="b", flour=Flour(name="f"),\n'
     '               baked=Oven(heat=900))\n', 'config.out-of-range', 'broken.py:4 heat 900'),
    ('from experiments.bakery import *\ndef get_config(): return Bread(name="b", flour=Flour(name="f"), minutes="9")\n',
     'config.wrong-type', "config.minutes '9' int"),
    ('from experiments.bakery import *\ndef get_config(): return Bread(name="b", flour=Flour(name="f"), seeds=["x"])\n',
     'config.wrong-type', 'config.seeds tuple'),
    ('from experiments.bakery import *\ndef get_config(): return Bread(name="b", flour=Flour(name="f"), minuets=9)\n',
     'config.unknown-field', 'broken.py:2 Bread(minuets=...) nearest minutes'),
    ('from experiments.bakery import *\nfrom dataclasses import replace\ndef get_config():\n'
     '  return replace(Bread(name="b", flour=Flour(name="f")), minuets=9)\n',
     'config.unknown-field', 'broken.py:4 nearest minutes'),
    ('from experiments.bakery import *\ndef get_config():\n'
     '  return Bread(name="b", flour=Flour(name="f"), baked=Oven(heat="9"))\n',
     'config.wrong-type', "broken.py:3: Oven.heat '9' (str) float give 9,"),
    ('from experiments.quickstart.pretrain import *\nfrom dataclasses import replace\nLONG = get_config()\n'
     'def get_config(): return replace(LONG, steps=20)\n', 'config.warmup',
     'sotu-lm: warmup = 20, steps = 20 --config.optimizer.schedule.warmup=2'),
    ('from experiments.bakery import *\ndef get_config(): return Bread(name="../b", flour=Flour(name="f"))\n',
     'config.bad-name', '../b'),
    ('from dataclasses import dataclass\nfrom train.artifact import Artifact\n@dataclass(frozen=True, kw_only=True)\n'
     'class Mine(Artifact):\n  def make(self, folder, store): pass\ndef get_config(): return Mine(name="m")\n',
     'config.unknown-type', 'experiment_file.Mine kernels experiments'),
]


@pytest.mark.parametrize('text, id, words', FILES, ids=[id + str(index) for index, (_, id, _) in enumerate(FILES)])
def test_mistakes_in_the_file_are_told_with_their_line(text, id, words, tmp_path):
  path = tmp_path / 'broken.py'
  path.write_text(text)
  with pytest.raises(UserError) as caught:
    go(f'--config={path}', f'--runs={tmp_path / "runs"}')
  assert caught.value.id == id
  assert not [word for word in words.split() if word not in str(caught.value)], str(caught.value)


def test_an_edited_run_json_cannot_pass_for_what_its_folder_holds(bread, tmp_path):
  runs = tmp_path / 'runs'
  go(f'--config={bread}', f'--runs={runs}')
  [path] = runs.glob('bread-*/run.json')
  path.write_text(path.read_text().replace('"minutes": 40', '"minutes": 41'))
  with pytest.raises(ConfigError, match='edited') as caught:
    go(f'--config={path}', f'--runs={runs}')
  assert caught.value.id == 'config.changed-meaning'


def test_a_python_name_in_a_run_json_is_not_imported(tmp_path):
  (tmp_path / 'evil.py').write_text(f'open({str(tmp_path / "marker")!r}, "w")\n')
  (tmp_path / 'run.json').write_text('{"type": "evil.Thing"}')
  with pytest.raises(ConfigError, match=r'evil\.Thing'):
    go(f'--config={tmp_path / "run.json"}')
  assert not (tmp_path / 'marker').exists()


def test_what_does_not_fit_here_is_refused_before_its_parents_are_made(bread, tmp_path, monkeypatch):
  from experiments.bakery import Bread

  def fits(thing):
    raise ConfigError('config.batch', thing.name, 'it does not divide', 'use 9')

  monkeypatch.setattr(Bread, 'fits', fits)
  with pytest.raises(ConfigError, match='does not divide'):
    go(f'--config={bread}', f'--runs={tmp_path / "runs"}')
  assert not list(tmp_path.glob('runs/flour-*'))


def test_a_warm_up_that_outlasts_a_parent_is_refused_before_anything_is_made(tmp_path):
  for dry in ([], ['--dry_run']):
    with pytest.raises(ConfigError, match=r'sotu-lm: optimizer.schedule.warmup = 900, steps = 800'):
      go(f'--config={ROOT}/experiments/quickstart/report.py', f'--runs={tmp_path / "runs"}', *dry,
         '--config.run.optimizer.schedule.warmup=900')
  assert not list(tmp_path.glob('runs/*'))


@pytest.mark.parametrize('file, short, add', [
  ('quickstart/pretrain', ['--config.steps=10'], ['--config.optimizer.schedule.warmup=1']),
  ('quickstart/report', ['--config.run.steps=30', '--config.run.optimizer.schedule.warmup=31'],
   ['--config.run.optimizer.schedule.warmup=3']),
  ('lora/sotu_tiny', ['--config.restore.steps=1'], ['--config.restore.optimizer.schedule.warmup=0'])])
def test_a_run_that_is_too_short_to_be_warm_is_told_the_flag_with_which_it_is_launched(file, short, add, tmp_path, capsys):
  argv = [f'--config={ROOT}/experiments/{file}.py', f'--runs={tmp_path / "runs"}', '--dry_run']
  with pytest.raises(ConfigError) as caught:
    go(*argv, *short)
  assert caught.value.id == 'config.warmup' and [word for word in caught.value.do.split() if word.startswith('--')] == add
  assert plan(override(load(argv[0].removeprefix('--config=')), dict(flag.removeprefix('--config.').split('=')
                                                                    for flag in [*short, *add])), Store(tmp_path))


def test_a_flag_of_other_commands_is_not_passed_over(bread, tmp_path):
  job = shell(f'--config={bread}', f'--run={tmp_path / "runs"}')
  said = job.communicate(timeout=100)[1]
  assert job.returncode == 78 and 'config.unknown-flag' in said and 'the nearest are --runs' in said
