"""Preference pairs from a verifier: of several answers of a model to one question, the best is chosen over the worst.

    ranked = Ranked(name='ranked', questions=FromTask(TASK), writer=ByRun(chat), grader=Verified(TASK))
    Corpus(name='ranked-pairs', sources=(FromGenerated(ranked),), stages=())         pairs, as any others are

So a task whose answers can be checked gives preferences without people. A line of the folder's `graded.jsonl` has all answers
to a question and their grades (`align.generated`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from align.generated import Generated, seeds
from align.journal import Record
from align.judge import Judge
from align.preferences import PairLines
from align.rewards import TextReward
from model.errors import ConfigError
from train.artifact import Store


@dataclass(frozen=True, kw_only=True)
class Ranked(Generated):
  """`group` answers to each question. The margin of a pair is the difference of its grades."""

  writer: Judge
  grader: TextReward
  group: int = 4

  records: ClassVar = 'graded.jsonl'
  lines: ClassVar = 'pairs.jsonl'
  kept: ClassVar = 'ranked'
  reader: ClassVar = PairLines
  refusal: ClassVar = ('pair.none', 'take more answers to a question, or questions that are neither too hard nor too easy')

  def __post_init__(self):
    super().__post_init__()
    if self.group < 2:
      raise ConfigError('config.out-of-range', f'group = {self.group}', 'answers are compared', 'use 2 or more')

  def asking(self, store: Store) -> Callable[[range], list[Record]]:
    """A function that asks the writer several times and grades what it says."""
    asked, writer = self.questions.open(store, 'train'), self.writer.open(store)

    def lot(numbers: range) -> list[Record]:
      questions = [asked(number) for number in numbers]
      said = [writer.write([question.messages for question in questions], seeds(self.seed, 'answer', place, numbers))
              for place in range(self.group)]
      return [record(number, [message._asdict() for message in question.messages], [answer.text for answer in answers],
                     [self.grader.score(question, answer.text) for answer in answers])
              for number, question, *answers in zip(numbers, questions, *said)]

    return lot

  def line(self, record: Record) -> Record:
    """The pair of a question."""
    return pair(record)


def record(number: int, question: list[dict[str, str]], answers: list[str], grades: list[float]) -> Record:
  """The line of `graded.jsonl` for a question; empty answers do not count."""
  said = [grade for answer, grade in zip(answers, grades) if answer.strip()]
  outcome = 'ranked' if said and max(said) > min(said) else 'left out: all are graded alike'
  return {'number': number, 'question': question, 'answers': answers, 'grades': grades, 'outcome': outcome}


def pair(graded: Record) -> Record:
  """A line of `PairLines`: the first of the best and the first of the worst answers."""
  order = sorted((grade, -place) for place, grade in enumerate(graded['grades']) if graded['answers'][place].strip())
  best, worst = -order[-1][1], next(place for place, grade in enumerate(graded['grades'])
                                    if grade == order[0][0] and graded['answers'][place].strip())
  return {'messages': graded['question'], 'chosen': graded['answers'][best], 'rejected': graded['answers'][worst],
          'margin': graded['grades'][best] - graded['grades'][worst]}
