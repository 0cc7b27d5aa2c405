"""What happens between steps: held-out loss, samples, saves, a profile. Each is called with (step, state, metrics)."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from model.errors import PREEMPTED, UserError
from train.metrics import Recorder
from train.types import Mean, State


class Preempted(UserError):
  """The run was told to leave and has saved its state."""
  exit_code = PREEMPTED


@dataclass
class Every:
  """Calls `action(step, state)` after every `every` steps (0: never) and after step `last`; its time is not the step's."""

  every: int
  last: int
  recorder: Recorder
  action: Callable[[int, State], None]

  def __call__(self, step: int, state: State, metrics: dict[str, Mean]) -> None:
    if step == self.last or (self.every and step % self.every == 0):
      self.recorder.flush()
      self.action(step, state)
      self.recorder.pause()


@dataclass
class LeaveWhenAsked:
  """After SIGTERM or SIGINT: saves, then ends the run with the exit code that means `run me again`."""

  asked: Callable[[int], bool]
  recorder: Recorder
  save: Callable[[int, State], None]

  def __call__(self, step: int, state: State, metrics: dict[str, Mean]) -> None:
    if self.asked(step):
      self.recorder.flush()
      self.save(step, state)
      raise preempted(step)


def preempted(step: int) -> Preempted:
  """The exception that ends a run which has saved this step."""
  return Preempted('run.preempted', f'the run was told to leave at step {step}', 'a signal came; the state is saved',
                   'launch the same command again: it goes on from here')


@dataclass
class Profile:
  """A `jax.profiler` trace of steps `begin + 1` to `end`, in `folder`/profile; `close` prints how to open it.

  Python's own frames are left out: they fill a trace, and what the devices do is in it without them.
  """

  folder: Path
  begin: int
  end: int
  state: Literal['before', 'tracing', 'written'] = 'before'

  def __call__(self, step: int, state: State, metrics: dict[str, Mean]) -> None:
    if step == self.begin:
      jax.block_until_ready(state)
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0
      jax.profiler.start_trace(str(self.folder / 'profile'), profiler_options=options)
      self.state = 'tracing'
    elif step == self.end and self.state == 'tracing':
      jax.block_until_ready(state)
      self.stop()

  def stop(self) -> None:
    jax.profiler.stop_trace()
    self.state = 'written'

  def close(self) -> None:
    """Ends a trace that is still running, and prints how to open it. Does nothing if none was begun."""
    if self.state == 'tracing':
      self.stop()
    if self.state == 'written':
      print(self.told(), file=sys.stderr, flush=True)

  def told(self) -> str:
    """How to open the trace: a command, and a page."""
    paths = sorted((self.folder / 'profile').rglob('*.trace.json.gz'), key=lambda path: path.stat().st_mtime)
    return (f'profile of steps {self.begin + 1} to {self.end}: python -m experiments.profile --run={self.folder}\n'
            f'  along the time: open {paths[-1] if paths else self.folder} at https://ui.perfetto.dev')


@dataclass
class Samples:
  """Appends to a file what the model says after each prompt. All processes answer, for all hold the model; the first writes."""

  path: Path
  prompts: tuple[str, ...]
  answer: Callable[[State, tuple[str, ...]], list[str]]

  def __call__(self, step: int, state: State) -> None:
    answers = self.answer(state, self.prompts)
    if jax.process_index() > 0:
      return
    with open(self.path, 'a') as file:
      for prompt, text in zip(self.prompts, answers):
        line = {'step': step, 'time': round(time.time(), 3), 'prompt': prompt, 'text': text}
        file.write(json.dumps(line, ensure_ascii=False) + '\n')
