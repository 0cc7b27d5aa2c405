"""Tasks whose answers a program can verify: the questions, and a grade for an answer.

    Largest()       Which is the largest: 3 8 1 5?      8           small enough for a model of minutes
    Sums()          What is 17 + 5?                     22
    Gym('gcd')      any task of reasoning-gym (Apache-2.0; `pip install reasoning-gym`)
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from align.conversations import to_text
from model.chat import Message
from model.errors import ConfigError, DataError
from train.data.document import Document
from train.data.readers import Reader
from train.data.shuffle import draws, key, permutation


class Problem(NamedTuple):
  """A question, and what `Task.grade` needs to know of its answer."""

  text: str
  solution: str


class Task(ABC):
  """An endless series of problems: problem i is a function of the task and i alone."""

  @abstractmethod
  def problem(self, number: int) -> Problem:
    """The problem of that number. Two numbers may give one problem."""

  @abstractmethod
  def grade(self, problem: Problem, answer: str) -> float:
    """How right an answer is, from 0 to 1."""


class Numbers(Task):
  """Tasks whose answer is a whole number: right if it is the only number in the answer, else wrong."""

  def grade(self, problem: Problem, answer: str) -> float:
    return float(re.findall(r'-?\d+', answer) == [problem.solution])


@dataclass(frozen=True)
class Largest(Numbers):
  """The largest of so many different numbers below `below`."""

  count: int = 4
  below: int = 10

  def __post_init__(self):
    if not 1 < self.count <= self.below:
      raise ConfigError('config.out-of-range', f'count = {self.count}, below = {self.below}',
                        'the numbers of a question differ', 'use a count from 2 to `below`')

  def shown(self, number: int) -> list[int]:
    """The numbers of a problem."""
    return permutation(key(repr(self), number), self.below)[:self.count].tolist()

  def problem(self, number: int) -> Problem:
    shown = self.shown(number)
    return Problem(f'Which is the largest: {" ".join(map(str, shown))}?', str(max(shown)))


@dataclass(frozen=True)
class Sums(Numbers):
  """The sum of two numbers below `below`."""

  below: int = 100

  def __post_init__(self):
    if self.below < 1:
      raise ConfigError('config.out-of-range', f'below = {self.below}', 'numbers are from 0 to below it', 'use 1 or more')

  def problem(self, number: int) -> Problem:
    one, two = (draws(key(repr(self), number), 2) % self.below).tolist()
    return Problem(f'What is {one} + {two}?', str(one + two))


@dataclass(frozen=True)
class Gym(Task):
  """A task of reasoning-gym by name (`chain_sum`, `gcd`, `spell_backward`, ...), scored by its own verifier.

  Its scorers give 0.01 for any answer: what is below `threshold` counts as 0.
  """

  name: str
  threshold: float = 0.1
  seed: int = 0

  def problem(self, number: int) -> Problem:
    """Raises: ConfigError if reasoning-gym is not there, or has no such task."""
    entry = _gym(self.name, self.seed)[number % 2**31]
    return Problem(entry['question'], str(number % 2**31))

  def grade(self, problem: Problem, answer: str) -> float:
    data = _gym(self.name, self.seed)
    score = float(data.score_answer(answer.strip(), data[int(problem.solution)]))
    return score if score >= self.threshold else 0.0


@cache
def _gym(name: str, seed: int) -> Any:
  try:
    import reasoning_gym  # three seconds: only those who use it wait for it
  except ImportError:
    raise ConfigError('task.no-gym', f'Gym({name!r})', 'reasoning-gym is not installed', 'pip install reasoning-gym') from None
  try:
    return reasoning_gym.create_dataset(name, seed=seed, size=2**31)
  except ValueError as error:
    raise ConfigError('task.unknown', f'Gym({name!r})', str(error), 'name a task of reasoning-gym') from None


@dataclass(frozen=True)
class Guesses(Reader):
  """Conversations in which problems of `Largest` are answered by one of their numbers at random.

  A model that learns from them knows what an answer looks like, and not which is right: a start for reinforcement learning.
  """

  task: Largest
  count: int = 2000
  _: KW_ONLY
  source: str = 'guesses'

  def files(self) -> list[Path]:
    return []

  def records(self) -> Iterator[Document | DataError]:
    for number in range(self.count):
      place = int(draws(key(repr(self.task), 'guess', number), 1)[0] % self.task.count)
      said = [Message('user', self.task.problem(number).text), Message('assistant', str(self.task.shown(number)[place]))]
      yield Document(to_text(said), self.source, str(number))
