"""The questions of rollouts and judges, by number: of a task or of the conversations of a corpus, some of them held out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from align.conversations import Messages, from_text
from align.tasks import Problem, Task
from model.chat import Message
from model.errors import ConfigError, DataError
from train.artifact import Store
from train.data.corpus import Corpus
from train.data.document import Document, Split, held_out
from train.data.shuffle import key, permutation


class Question(NamedTuple):
  """A question. `problem` is for a verifier; `answer` is a person's own answer, where there is one."""

  id: str
  messages: Messages
  problem: Problem | None = None
  answer: str = ''


Questions = Callable[[int], Question]      # question g for every g from 0 on, without end: a function of g alone


class Asking(ABC):
  """A source of questions. Each question is either for training or held out, whatever its number."""

  @abstractmethod
  def open(self, store: Store, split: Split) -> Questions:
    """The questions of a split. Raises: DataError where there is none."""


@dataclass(frozen=True)
class FromTask(Asking):
  """The problems of a task, after the system message `system` if it is not empty. A hash of its text holds a problem out."""

  task: Task
  system: str = ''
  heldout_modulo: int = 10
  seed: int = 0

  def __post_init__(self):
    if self.heldout_modulo < 2:
      raise ConfigError('config.out-of-range', f'heldout_modulo = {self.heldout_modulo}', 'one problem in so many is held out',
                        'use 2 or more')

  def open(self, store: Store, split: Split) -> Questions:
    scene = (Message('system', self.system),) if self.system else ()

    def question(number: int) -> Question:
      for draw in range(1000 * self.heldout_modulo):
        problem = self.task.problem(key(self.seed, split, number, draw) >> 1)
        if held_out(problem.text, self.heldout_modulo) == (split == 'heldout'):
          return Question(f'{split} {number}', (*scene, Message('user', problem.text)), problem)
      raise DataError('question.none', f'{self.task}', f'of {draw + 1} problems none is for {split}',
                      'use a task with more problems, or another heldout_modulo')

    return question


@dataclass(frozen=True)
class FromTalks(Asking):
  """Each conversation of a corpus up to its last answer, which is left out; shuffled anew for every epoch."""

  corpus: Corpus
  seed: int = 0

  def open(self, store: Store, split: Split) -> Questions:
    documents = self.corpus.documents(store.find(self.corpus), split)
    found = [question for document in documents if (question := asked(document))]
    if not found:
      raise DataError('question.none', f'{self.corpus.name}, {split}', 'none of its conversations has an answer',
                      'add conversations, or lower heldout_modulo')
    order = lru_cache(maxsize=2)(lambda epoch: permutation(key(self.seed, 'questions', epoch), len(found)))
    return lambda number: found[order(number // len(found))[number % len(found)]]


def asked(document: Document) -> Question | None:
  """The conversation up to its last answer, as a question; None if there is no answer to a user's message."""
  where = f'{document.source}:{document.id}'
  messages = from_text(document.text, where)
  answers = [place for place, message in enumerate(messages) if message.role == 'assistant']
  if not answers or not any(message.role == 'user' for message in messages[:answers[-1]]):
    return None
  return Question(where, messages[:answers[-1]], answer=messages[answers[-1]].content)
