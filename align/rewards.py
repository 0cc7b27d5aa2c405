"""What an answer is worth: rewards as values, opened once for a run, and a jury that believes none of them blindly.

Any callable of Python is one: a frozen dataclass with a method, in a file of one's own under experiments/.

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

from align import apart
from align.questions import Question
from align.tasks import Task
from model.errors import ConfigError, DataError, NumericsError, UserError
from train.canonical import how
from train.run import Run
from train.types import Setting

log = logging.getLogger(__name__)

PATIENCE = 5           # lots of answers that all got one reward, after which somebody should know


class Answer(NamedTuple):
  """What was written after a question. `ids` are the sampled ones, with what ended them; nothing is encoded again."""

  question: Question
  prompt: np.ndarray                  # i32
  ids: np.ndarray                     # i32
  text: str
  reason: Literal['eos', 'stop', 'length']


Scores = Callable[[Sequence[Answer]], Sequence[float] | np.ndarray]


class Reward(ABC):
  """What answers are worth. A larger number is better."""

  @abstractmethod
  def open(self, setting: Setting) -> Scores:
    """A function of many answers, which gives a number for each."""

  def holds(self, run: Run) -> Any:
    """The abstract arrays that it keeps on the devices of a run."""
    return None


class TextReward(Reward):
  """A reward that sees a question and the answer's text."""

  @abstractmethod
  def score(self, question: Question, answer: str) -> float:
    """What this answer is worth."""

  def open(self, setting: Setting) -> Scores:
    return lambda answers: [self.score(answer.question, answer.text) for answer in answers]


@dataclass(frozen=True)
class Verified(TextReward):
  """What the task's own verifier says of the answer, from 0 to 1. The questions are `FromTask`."""

  task: Task

  def score(self, question: Question, answer: str) -> float:
    if question.problem is None:
      raise DataError('reward.no-problem', f'question {question.id}', 'a verifier needs the problem behind it',
                      'use questions FromTask, or another reward')
    return self.task.grade(question.problem, answer)


@dataclass(frozen=True)
class Length(Reward):
  """`per_token` for each token of the answer beyond the first `free` of them: a price if it is negative."""

  per_token: float
  free: int = 0

  def open(self, setting: Setting) -> Scores:
    return lambda answers: [self.per_token * max(0, len(answer.ids) - self.free) for answer in answers]


@dataclass(frozen=True)
class Part:
  """One term of a sum of rewards, by the name under which it is written down."""

  name: str
  reward: Reward
  weight: float = 1.0
  seconds: float = how(600.0)         # that it may take for the answers of one iteration

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
    """What each part gives each answer, {name: f32[B]}, not weighed.

    Raises: NumericsError `reward.not-finite`; DataError `reward.raised`, `reward.slow`, `reward.count`.
    """
    found = {}
    for part, scores in zip(self.parts, self.scores):
      found[part.name] = values = self._valid(part, self._called(part, scores, answers), answers)
      self._notice(part, values, answers)
    return found

  def total(self, found: dict[str, np.ndarray]) -> np.ndarray:
    """The weighted sum, f32[B]."""
    return np.stack([np.float32(part.weight) * found[part.name] for part in self.parts if part.weight]).sum(0)

  def _called(self, part: Part, scores: Scores, answers: Sequence[Answer]) -> Sequence[float] | np.ndarray:
    work = apart.begin(scores, answers, 'reward')
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
    """Says so where a reward has been the same for all answers for a while: nothing can be learnt from it."""
    self.alike[part.name] = self.alike[part.name] + 1 if len(answers) > 1 and np.ptp(values) == 0 else 0
    if self.alike[part.name] and self.alike[part.name] % PATIENCE == 0:
      log.warning('reward %r gave %g to each of %d answers, as it did the %d times before: nothing can be learnt from it',
                  part.name, values[0], len(answers), PATIENCE - 1)


def _brief(answer: Answer) -> str:
  return f'the answer {answer.text[:60]!r} to question {answer.question.id} ({answer.question.messages[-1].content[:60]!r})'
