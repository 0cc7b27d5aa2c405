"""Forbidden content as a value: where it stands in a text, and what an answer that holds it costs.

    Patterns((r'\\b(?:1[789]|20)\\d\\d\\b',))        years, by regular expression
    Personal(('email', 'phone'))                  what is written like personal data and passes its checks (train.data.pii)
    Limit('years', Forbidden(Patterns(...)), most=0.01)          at most one answer in a hundred has any
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from align.questions import Question
from align.rewards import TextReward
from model.errors import ConfigError, demand
from train.data.pii import FINDERS, KINDS, Kind

Found = tuple[int, int]                # characters begin .. end - 1 of a text


class Content(ABC):
  """Something to look for in texts."""

  @abstractmethod
  def finds(self, text: str) -> Iterator[Found]:
    """Where it stands, in the order of the text for each pattern; never empty, and finds of two patterns may overlap."""


@dataclass(frozen=True)
class Patterns(Content):
  """Whatever one of these regular expressions matches."""

  patterns: tuple[str, ...]

  def __post_init__(self):
    demand(bool(self.patterns), 'Patterns.patterns', self.patterns, 'nothing is looked for', 'give at least one')
    for pattern in self.patterns:
      compiled(pattern)

  def finds(self, text: str) -> Iterator[Found]:
    return (match.span() for pattern in self.patterns for match in compiled(pattern).finditer(text) if match.group())


@dataclass(frozen=True)
class Personal(Content):
  """Whatever `train.data.pii` takes for personal data of these kinds."""

  kinds: tuple[Kind, ...] = KINDS

  def __post_init__(self):
    demand(bool(self.kinds), 'Personal.kinds', self.kinds, 'nothing is looked for', f'name some of {", ".join(KINDS)}')

  def finds(self, text: str) -> Iterator[Found]:
    for kind in self.kinds:
      pattern, holds = FINDERS[kind]
      yield from (match.span() for match in pattern.finditer(text) if holds(match.group()))


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern:
  """The compiled pattern. Raises: ConfigError if it is no regular expression, or matches the empty text."""
  try:
    found = re.compile(pattern)
  except re.error as error:
    raise ConfigError('forbidden.bad-pattern', f'pattern {pattern!r}', f'it is no regular expression: {error}',
                      'mend it') from None
  if found.search(''):
    raise ConfigError('forbidden.empty-pattern', f'pattern {pattern!r}', 'it matches the empty text, and so every text',
                      'ask for at least one character, with + instead of *')
  return found


@dataclass(frozen=True)
class Forbidden(TextReward):
  """A cost: 1 for an answer that holds such content, else 0, so that a limit is a share of answers."""

  content: Content

  def score(self, question: Question, answer: str) -> float:
    return float(any(True for _ in self.content.finds(answer)))


@dataclass(frozen=True)
class HowOften(TextReward):
  """A cost: in how many places of an answer such content stands."""

  content: Content

  def score(self, question: Question, answer: str) -> float:
    return float(len(set(self.content.finds(answer))))
