"""What happens between steps: held-out loss, samples, saves, a profile. Each is called with (step, state, metrics)."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax

from model.errors import PREEMPTED, UserError
from train.record import Recorder
from train.types import Mean, State


class Preempted(UserError):
  """The run was told to leave and has saved its state."""
  exit_code = PREEMPTED


@dataclass
class Every:
  """Calls `action(step, state)` after every `every` steps and after step `last`; its time is not the step's."""

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
      raise Preempted('run.preempted', f'the run was told to leave at step {step}', 'a signal came; the state is saved',
                      'launch the same command again: it goes on from here')


@dataclass
class Profile:
  """A `jax.profiler` trace of steps `begin` to `end`, for TensorBoard or Perfetto."""

  folder: Path
  begin: int
  end: int

  def __call__(self, step: int, state: State, metrics: dict[str, Mean]) -> None:
    if step == self.begin:
      jax.profiler.start_trace(str(self.folder / 'profile'))
    elif step == self.end:
      jax.block_until_ready(state)
      jax.profiler.stop_trace()


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
