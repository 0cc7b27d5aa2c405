"""Launching: what is made, found and resumed, what is said, and with which code it ends."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.launching import ROOT, go, shell


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
  assert any(tmp_path.glob('*-cache')) == kept


def test_a_program_that_was_left_half_written_in_the_cache_is_compiled_once_more_and_kept(tmp_path):
  text = 'from experiments.processes import cache_compilations; import jax; cache_compilations(); jax.jit(lambda x: x + 1)(1)'

  def said() -> str:
    return subprocess.run([sys.executable, '-W', 'always', '-c', text], cwd=ROOT, check=True, capture_output=True, text=True,
                          env=os.environ | {'JAX_COMPILATION_CACHE_DIR': str(tmp_path)}).stderr

  said()
  entries = {path: path.read_bytes() for path in tmp_path.glob('*-cache')}
  for path, whole in entries.items():
    path.write_bytes(whole[:len(whole) // 2])
  other = tmp_path / 'by-zstandard-cache'
  other.write_bytes(b'\x28\xb5\x2f\xfd, which jax here cannot read')
  assert 'Error reading' not in said() and entries and other.exists()
  assert all(len(path.read_bytes()) > 0.9 * len(whole) for path, whole in entries.items())
  for path in entries:
    path.write_bytes(b'')
    os.utime(path, (0, 0))                       # as if somebody had looked at it since: it is not read again
  assert 'Error reading' in said()


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
