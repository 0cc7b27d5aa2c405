"""A template's process: an answer belongs to the question that was asked, whatever interrupted the one before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model import jinja_process
from model.jinja_process import Job, Process

ROOT = Path(__file__).parents[2]
ECHO = '{{ messages[0].content }}'


def asked(process: Process, content: str) -> str:
  return process.write(Job((('user', content),), False), {})


def interrupted(process: Process, content: str, line: int) -> bool:
  """Whether a question was interrupted: at the so many-th line that is run of the module's code, once it is its turn.

  Python itself sees to it that a lock is given back, but not where a trace raises.
  """
  left = [line]

  def trace(frame, event, _):
    if frame.f_code.co_filename != jinja_process.__file__ or frame.f_code.co_name == 'write':
      return None
    left[0] -= event == 'line'
    if left[0] == 0 and event == 'line':
      raise KeyboardInterrupt
    return trace

  before = sys.gettrace()
  sys.settrace(trace)
  try:
    asked(process, content)
  except KeyboardInterrupt:
    return True
  finally:
    sys.settrace(before)
  return False


@pytest.mark.parametrize('first, step', [(True, 4), (False, 1)], ids=['which starts the process', 'of a process that is there'])
def test_after_an_interrupt_at_any_line_of_a_question_the_next_has_its_own_answer(first, step):
  process, line, cut = Process(ECHO, '2024-07-26'), 0, True
  while cut:
    line += step
    if first:
      process = Process(ECHO, '2024-07-26')
    elif process.child is None:
      asked(process, 'it is there')
    cut = interrupted(process, f'cut at {line}', line)
    assert asked(process, f'after {line}') == f'after {line}'
  assert line > 10


def test_ctrl_c_at_a_terminal_which_goes_to_all_that_it_started_leaves_the_process_alone():
  code = """
import os, signal, time
from tests.model.test_jinja_process import ECHO, Process, asked
signal.signal(signal.SIGINT, lambda *_: print('heard', flush=True))
process = Process(ECHO, '2024-07-26')
asked(process, 'one')
child = process.child.pid
os.killpg(0, signal.SIGINT)
time.sleep(0.5)
assert asked(process, 'two') == 'two' and process.child.pid == child
"""
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=os.environ | {'PYTHONPATH': str(ROOT)}, text=True,
                        capture_output=True, start_new_session=True, timeout=60)
  assert done.returncode == 0 and done.stdout == 'heard\n', done.stderr
