"""Ctrl-C: one is enough, while Python imports and while it collects garbage."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def started(*command: str, **environment: str) -> subprocess.Popen:
  signal.signal(signal.SIGINT, signal.default_int_handler)       # a background job may ignore it, and so its children
  return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=os.environ | environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


COMMANDS = [path.stem for path in sorted((ROOT / 'experiments').glob('*.py')) if 'command.run(' in path.read_text()
            and path.stem not in ('command', 'profile')]                          # which imports no JAX


@pytest.mark.parametrize('command', COMMANDS)
def test_ctrl_c_while_jax_is_imported_is_one_line(command, tmp_path):
  (tmp_path / 'jax.py').write_text('import time\nprint("importing", flush=True)\ntime.sleep(30)\n')
  with started('-m', f'experiments.{command}', PYTHONPATH=str(tmp_path)) as process:
    assert process.stdout.readline() == 'importing\n'
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1].count('\n') == 1 and process.returncode == 130


COLLECTS = """
import gc, sys, time
from experiments import command

def slow(phase, info):
  if phase == 'start' and said:
    print(said.pop(), flush=True)
    for _ in range(50):
      time.sleep(0.01)

def main(overrides):
  gc.callbacks.append(slow)
  gc.collect()
  time.sleep(5)
  return 0

said = ['collecting']
sys.argv = sys.argv[:1]
{run}
"""


@pytest.mark.parametrize('run, code', [('command.run(main)', 130), ('sys.exit(command.guarded(main, {}))', 0)],
                         ids=['every command', 'as Python has it'])
def test_ctrl_c_while_garbage_is_collected_is_raised_once_more(run, code):
  with started('-c', COLLECTS.format(run=run)) as process:
    assert process.stdout.readline() == 'collecting\n'
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code and ('interrupted' in err) == (code == 130) and ('Traceback' in err) == (code == 0), err


def test_what_else_is_dropped_is_told_as_before():
  code = """
import sys
from experiments import interrupt
class Bad:
  def __del__(self): raise ValueError('of this kind')
def main(given):
  Bad()
  return 0
sys.exit(interrupt.heard(main)(None))
"""
  with started('-c', code) as process:
    assert 'of this kind' in process.communicate(timeout=30)[1] and process.returncode == 0
