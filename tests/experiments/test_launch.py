"""Launching: what is made, found and resumed, what is said, and with which code it ends."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from absl.testing import flagsaver

from experiments import command, launch
from model.errors import ConfigError, UserError

ROOT = Path(__file__).parents[2]
TOYS = ROOT / 'tests' / 'toys'
BREAD = str(TOYS / 'experiments' / 'bakery.py')


@pytest.fixture(autouse=True)
def toys(monkeypatch):
  monkeypatch.syspath_prepend(str(TOYS))


@pytest.fixture
def bread(tmp_path):
  """An experiment file whose classes live in a room."""
  path = tmp_path / 'bread.py'
  path.write_text('from experiments.bakery import get_config\n')
  return path


def go(*argv: str) -> int:
  """`python -m experiments.launch ARGV` in this process; errors are raised."""
  with flagsaver.flagsaver():
    overrides = command.parse(['launch', *argv])
    return launch.main(overrides)


def shell(*argv: str) -> subprocess.Popen:
  """`python -m experiments.launch ARGV` in a process of its own."""
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  return subprocess.Popen([sys.executable, '-m', 'experiments.launch', *argv], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment | {'PYTHONPATH': str(TOYS)})


def test_makes_the_lineage_then_finds_it(bread, tmp_path, capsys):
  runs = f'--runs={tmp_path / "runs"}'
  assert go(f'--config={bread}', runs) == 0
  first = capsys.readouterr()
  assert first.out.count('to be made') == 2 and 'making flour' in first.err and 'making bread' in first.err
  assert go(f'--config={bread}', runs) == 0
  second = capsys.readouterr()
  assert 'to be made' not in second.out and 'all is there' in second.err
  assert go(f'--config={bread}', runs, '--config.minutes=50', '--config.flour.grain=rye') == 0
  assert 'making flour' not in (third := capsys.readouterr()).err and 'making bread' in third.err


def test_what_does_not_fit_here_is_refused_before_its_parents_are_made(bread, tmp_path, monkeypatch):
  from experiments.bakery import Bread

  def fits(thing):
    raise ConfigError('config.batch', thing.name, 'it does not divide', 'use 9')

  monkeypatch.setattr(Bread, 'fits', fits)
  with pytest.raises(ConfigError, match='does not divide'):
    go(f'--config={bread}', f'--runs={tmp_path / "runs"}')
  assert not list(tmp_path.glob('runs/flour-*'))


def test_run_json_launches_the_very_same(bread, tmp_path, capsys):
  runs = tmp_path / 'runs'
  go(f'--config={bread}', f'--runs={runs}', '--config.rise=2.5')
  [folder] = runs.glob('bread-*')
  assert go(f'--config={folder / "run.json"}', f'--runs={runs}') == 0
  assert 'all is there' in capsys.readouterr().err
  assert go(f'--config={folder / "run.json"}', f'--runs={tmp_path / "others"}') == 0
  assert (tmp_path / 'others' / folder.name / 'bread.json').read_text() == (folder / 'bread.json').read_text()


def test_dry_run_writes_nothing(bread, tmp_path, capsys):
  assert go(f'--config={bread}', f'--runs={tmp_path / "runs"}', '--dry_run') == 0
  assert capsys.readouterr().out.count('to be made') == 2 and not (tmp_path / 'runs').exists()


def test_what_was_cut_off_is_said_with_what_changed_since(bread, tmp_path, capsys):
  runs = f'--runs={tmp_path / "runs"}'
  with pytest.raises(KeyboardInterrupt):
    go(f'--config={bread}', runs, '--config.minutes=1')
  capsys.readouterr()
  go(f'--config={bread}', runs, '--config.minutes=1', '--config.threads=4', '--dry_run')
  said = ' '.join(capsys.readouterr().out.split())
  assert 'cut off as dough' in said and 'threads was 1 and is 4' in said


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
     'def get_config(): return replace(LONG, steps=20)\n', 'config.warmup', 'sotu-lm: warmup = 20, steps = 20 below 20'),
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


def test_the_program_tells_a_mistake_in_one_message_and_a_bug_with_its_traceback(bread, tmp_path):
  runs = f'--runs={tmp_path / "runs"}'
  mistake = shell(f'--config={bread}', runs, '--config.minuets=3')
  bug = shell(f'--config={bread}', runs, '--config.minutes=0')
  help = shell('--help')
  _, err = mistake.communicate(timeout=400)
  assert mistake.returncode == 78 and err.startswith('error[config.unknown-field]') and 'Traceback' not in err
  _, err = bug.communicate(timeout=400)
  assert bug.returncode == 1 and 'an empty oven' in err and 'crash.json' in err and 'report it' in err.splitlines()[-1]
  out, _ = help.communicate(timeout=400)
  assert help.returncode == 0 and '--dry_run' in out and '--runs' in out and '--config.FIELD=VALUE' in out


def test_launching_imports_nothing_heavy_before_it_is_needed(bread):
  code = ('import sys; import experiments.launch; print(sorted({"matplotlib", "tensorflow_datasets", "sentencepiece", '
          '"tensorflow", "pyarrow", "grain", "orbax", "scipy", "pandas"} & set(sys.modules)))')
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert done.stdout.strip() == '[]'


def test_two_launches_at_once_make_it_once(bread, tmp_path):
  jobs = [shell(f'--config={bread}', f'--runs={tmp_path / "runs"}') for _ in range(2)]
  said = [job.communicate(timeout=400)[1] for job in jobs]
  assert [job.returncode for job in jobs] == [0, 0], said
  for folder in (tmp_path / 'runs').iterdir():
    assert len((folder / 'lives.jsonl').read_text().splitlines()) == 1


def test_a_plan_for_a_pod_needs_no_pod(tmp_path):
  path = tmp_path / 'pod.py'
  path.write_text('from dataclasses import replace\nfrom experiments.quickstart.pretrain import get_config as small\n'
                  'from model.sharding import MeshShape\nfrom model.sizes import SIZES\ndef get_config():\n'
                  '  return replace(small(), name="pod", model=SIZES["llama_8b"], batch=1024, parts=1,\n'
                  '                 mesh=MeshShape(fsdp=32, tensor=4))\n')
  plan = shell(f'--config={path}', '--dry_run', '--devices=256')
  none = shell(f'--config={path}', '--dry_run')
  out, err = plan.communicate(timeout=400)
  assert plan.returncode == 0, err
  said = ' '.join(out.split())
  assert 'parameters 8.03B' in said and 'devices 256: data 2 x fsdp 32 x tensor 4' in said and 'MiB of state' in said
  _, err = none.communicate(timeout=400)
  assert none.returncode == 78 and '--devices=N' in err


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def pair(bread: Path, runs: Path, second: tuple[str, ...] = ()) -> list[tuple[int, str]]:
  """Two processes of one job: exit code and what each wrote to stderr."""
  join = (f'--config={bread}', f'--runs={runs}', f'--coordinator=127.0.0.1:{free_port()}', '--processes=2')
  jobs = [shell(*join, '--process=0'), shell(*join, '--process=1', *second)]
  said = [job.communicate(timeout=400)[1] for job in jobs]
  return [(job.returncode, err) for job, err in zip(jobs, said)]


def test_two_processes_make_it_once(bread, tmp_path):
  (code, err), (other_code, other_err) = pair(bread, tmp_path / 'runs')
  assert (code, other_code) == (0, 0), err + other_err
  assert 'making bread' in err and 'making' not in other_err
  for folder in (tmp_path / 'runs').iterdir():
    assert len((folder / 'lives.jsonl').read_text().splitlines()) == 1


def test_processes_that_mean_different_things_stop_at_the_start(bread, tmp_path):
  results = pair(bread, tmp_path / 'runs', second=('--config.threads=2',))
  for code, err in results:
    assert code == 69 and 'error[distributed.other-config]' in err and 'process 1' in err, err
  assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('settings, kept', [({}, True), ({'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '60'}, False)])
def test_small_programs_are_kept_for_the_next_launch_unless_told_otherwise(settings, kept, tmp_path):
  text = 'from experiments.processes import cache_compilations; import jax; cache_compilations(); jax.jit(lambda x: x + 1)(1)'
  subprocess.run([sys.executable, '-c', text], cwd=ROOT, check=True,
                 env=os.environ | {'JAX_COMPILATION_CACHE_DIR': str(tmp_path)} | settings)
  assert any(tmp_path.iterdir()) == kept


def listening(port: int) -> set[str]:
  """The local addresses on which this machine listens at the port, as /proc/net spells them."""
  lines = [line.split() for name in ('tcp', 'tcp6') for line in Path(f'/proc/net/{name}').read_text().splitlines()[1:]]
  return {line[1].split(':')[0] for line in lines if line[3] == '0A' and int(line[1].split(':')[1], 16) == port}


@pytest.mark.skipif(not Path('/proc/net/tcp').exists(), reason='needs /proc/net')
def test_the_coordinator_listens_on_loopback_alone(bread, tmp_path):
  port = free_port()
  job = shell(f'--config={bread}', f'--runs={tmp_path / "runs"}', f'--coordinator=127.0.0.1:{port}', '--processes=2',
              '--process=0')
  try:
    deadline = time.monotonic() + 60
    while not listening(port) and time.monotonic() < deadline:
      time.sleep(0.1)
    assert listening(port) in ({'0100007F'}, {'0000000000000000FFFF00000100007F'})
  finally:
    job.kill()
    job.communicate()


def test_a_warm_up_that_outlasts_a_parent_is_refused_before_anything_is_made(tmp_path):
  for dry in ([], ['--dry_run']):
    with pytest.raises(ConfigError, match=r'sotu-lm: optimizer.schedule.warmup = 900, steps = 800'):
      go(f'--config={ROOT}/experiments/quickstart/report.py', f'--runs={tmp_path / "runs"}', *dry,
         '--config.run.optimizer.schedule.warmup=900')
  assert not list(tmp_path.glob('runs/*'))


def test_a_flag_of_other_commands_is_not_passed_over(bread, tmp_path):
  job = shell(f'--config={bread}', f'--run={tmp_path / "runs"}')
  said = job.communicate(timeout=100)[1]
  assert job.returncode == 78 and 'config.unknown-flag' in said and 'the nearest are --runs' in said
