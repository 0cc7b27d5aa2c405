"""Rewards: what an answer is worth, and the jury that asks several of them and checks what they return.

A reward is a frozen dataclass with a method, and yours may stand in a file of your own under experiments/:

    @dataclass(frozen=True)
    class Brief(TextReward):
      def score(self, question: Question, answer: str) -> float:
        return -len(answer) / 100
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from align import threads
from align.questions import Question
from align.tasks import Task
from model.errors import ConfigError, DataError, NumericsError, UserError
from train.canonical import how
from train.run import Run
from train.types import Setting

log = logging.getLogger(__name__)

PATIENCE = 5           # iterations in a row in which all answers got one reward, before a warning


class Answer(NamedTuple):
  """An answer to a question. `ids` are the sampled ones, the end token included; the text is never encoded again."""

  question: Question
  prompt: np.ndarray                  # i32
  ids: np.ndarray                     # i32
  text: str
  reason: Literal['eos', 'stop', 'length']


Scores = Callable[[Sequence[Answer]], Sequence[float] | np.ndarray]


class Reward(ABC):
  """A reward, or a cost: one number for each answer."""

  @abstractmethod
  def open(self, setting: Setting) -> Scores:
    """Makes it ready for a run: a function from answers to a number for each."""

  def holds(self, run: Run) -> Any:
    """The abstract arrays that it keeps on the devices of a run, for the plan of memory; None without any."""
    return None


class TextReward(Reward):
  """A reward of the question and the answer's text alone."""

  @abstractmethod
  def score(self, question: Question, answer: str) -> float:
    """The number for one answer."""

  def open(self, setting: Setting) -> Scores:
    return lambda answers: [self.score(answer.question, answer.text) for answer in answers]


@dataclass(frozen=True)
class Verified(TextReward):
  """The grade of the task's own verifier, from 0 to 1. The questions must be `FromTask`."""

  task: Task

  def score(self, question: Question, answer: str) -> float:
    if question.problem is None:
      raise DataError('reward.no-problem', f'question {question.id}', 'a verifier needs the problem behind it',
                      'use questions FromTask, or another reward')
    return self.task.grade(question.problem, answer)


@dataclass(frozen=True)
class Length(Reward):
  """`per_token` for each token of the answer beyond the first `free` ones: a length penalty if it is negative."""

  per_token: float
  free: int = 0

  def open(self, setting: Setting) -> Scores:
    return lambda answers: [self.per_token * max(0, len(answer.ids) - self.free) for answer in answers]


@dataclass(frozen=True)
class Part:
  """One term of a weighted sum of rewards; `name` is its column in the metrics."""

  name: str
  reward: Reward
  weight: float = 1.0
  seconds: float = how(600.0)         # the longest it may take for the answers of one iteration

  def __post_init__(self):
    if not self.name.isidentifier() or not self.seconds > 0:
      raise ConfigError('config.out-of-range', f'name = {self.name!r}, seconds = {self.seconds}', 'a name becomes a column of '
                        'the metrics, and a limit is above zero', "use for example Part('right', ...)")


class Jury:
  """The rewards of a run, opened. A reward that fails is named, with the question and the answer that it failed on."""

  def __init__(self, parts: Sequence[Part], setting: Setting):
    self.parts = tuple(parts)
    self.scores = [part.reward.open(setting) for part in self.parts]
    self.alike = dict.fromkeys((part.name for part in self.parts), 0)

  def __call__(self, answers: Sequence[Answer]) -> dict[str, np.ndarray]:
    """What each part gives each answer, {name: f32[B]}, before weights.

    Raises: NumericsError `reward.not-finite`; DataError `reward.raised`, `reward.slow`, `reward.count`.
    """
    found = {}
    for part, scores in zip(self.parts, self.scores):
      found[part.name] = values = self._valid(part, self._called(part, scores, answers), answers)
      self._notice(part, values, answers)
    return found

  def total(self, found: dict[str, np.ndarray]) -> np.ndarray:
    """The weighted sum of the parts, f32[B]."""
    return np.stack([np.float32(part.weight) * found[part.name] for part in self.parts if part.weight]).sum(0)

  def _called(self, part: Part, scores: Scores, answers: Sequence[Answer]) -> Sequence[float] | np.ndarray:
    work = threads.begin(scores, answers, 'reward')
    if not wait([work], part.seconds).done:
      raise DataError('reward.slow', f'reward {part.name!r}: {len(answers)} answers', f'it took more than {part.seconds:g} s',
                      'make it faster, or raise its seconds')
    try:
      return work.result()
    except UserError:
      raise
    except Exception as error:
      raise DataError('reward.raised', f'reward {part.name!r} on {_brief(answers[0])}, the first of {len(answers)}',
                      f'it raised {type(error).__name__}: {error}', 'mend the reward: an answer may be anything') from error

  def _valid(self, part: Part, given: Sequence[float] | np.ndarray, answers: Sequence[Answer]) -> np.ndarray:
    values = np.asarray(given, np.float32)
    if values.shape != (len(answers),):
      raise DataError('reward.count', f'reward {part.name!r}', f'it gave {values.shape} numbers for {len(answers)} answers',
                      'give one number for each answer')
    if not np.isfinite(values).all():
      place = int(np.flatnonzero(~np.isfinite(values))[0])
      raise NumericsError('reward.not-finite', f'reward {part.name!r} = {values[place]} for {_brief(answers[place])}',
                          'a sum with it is no number', 'mend the reward: give a finite number for every answer')
    return values

  def _notice(self, part: Part, values: np.ndarray, answers: Sequence[Answer]) -> None:
    """Warns where a reward has given all answers the same for `PATIENCE` calls: nothing can be learnt from it."""
    self.alike[part.name] = self.alike[part.name] + 1 if len(answers) > 1 and np.ptp(values) == 0 else 0
    if self.alike[part.name] and self.alike[part.name] % PATIENCE == 0:
      log.warning('reward %r gave %g to each of %d answers, as it did the %d times before: nothing can be learnt from it',
                  part.name, values[0], len(answers), PATIENCE - 1)


def _brief(answer: Answer) -> str:
  return f'the answer {answer.text[:60]!r} to question {answer.question.id} ({answer.question.messages[-1].content[:60]!r})'
