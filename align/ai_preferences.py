"""Constitutional AI, second stage (RLAIF): pairs with soft labels from a judge that reads principles (Bai et al. 2022, sec. 4).

    judged = AiPreferences(name='judged', questions=red, principles=PRINCIPLES, writers=(ByRun(sl), ByRun(sl)),
                           judge=ByRun(chat))
    Corpus(name='judged-pairs', sources=(FromGenerated(judged),), stages=())      pairs, as any others are

The judge should not be the policy that learns from it, or both drift together.

A line of the folder's `judged.jsonl` has both answers to a question, and for each principle and each order in which they were
shown the judge's log-probs of its options (`align.generated`). The side that the judge finds likelier is the chosen one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from align.constitution import Ballot, label
from align.generated import Generated, seeds
from align.journal import Record
from align.judge import Judge, Said
from align.preferences import PairLines
from align.principles import Principle, check_principles
from align.questions import Question, Questions
from model.errors import ConfigError
from train.artifact import Store

ORDERS = ('first, second', 'second, first')
DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class AiPreferences(Generated):
  """Two answers to each question, one of each writer, and the judge's label of them.

  The judge is asked for every principle in both orders, and `align.constitution.label` makes one label of it. Two equal answers
  are no pair, nor are two of which one is empty or was cut off.
  """

  principles: tuple[Principle, ...]
  writers: tuple[Judge, Judge]
  judge: Judge
  ballot: Ballot = Ballot()
  clamp: tuple[float, float] | None = None

  records: ClassVar = 'judged.jsonl'
  lines: ClassVar = 'pairs.jsonl'
  kept: ClassVar = 'judged'
  reader: ClassVar = PairLines
  refusal: ClassVar = ('pair.none', 'let two writers answer, or one at a higher temperature')

  def __post_init__(self):
    super().__post_init__()
    check_principles(self.principles)
    if self.clamp and not 0 <= self.clamp[0] <= 0.5 <= self.clamp[1] <= 1:
      raise ConfigError('config.out-of-range', f'clamp = {self.clamp}', 'a label is a probability, and 0.5 of one answer is '
                        '0.5 of the other', 'use for example None or (0.4, 0.6)')

  def asking(self, store: Store) -> Callable[[range], list[Record]]:
    return Judging(self, store)

  def line(self, record: Record) -> Record:
    """The pair of a question."""
    return pair(record)


class Judging:
  """AI preferences at work: a function from numbers of questions to their records."""

  def __init__(self, preferences: AiPreferences, store: Store):
    self.of = preferences
    self.questions: Questions = preferences.questions.open(store, 'train')
    opened = {judge: judge.open(store) for judge in dict.fromkeys((*preferences.writers, preferences.judge))}
    self.writers, self.judge = [opened[writer] for writer in preferences.writers], opened[preferences.judge]

  def __call__(self, numbers: range) -> list[Record]:
    asked = [self.questions(number) for number in numbers]
    answers = list(zip(*(writer.write([question.messages for question in asked], seeds(self.of.seed, 'answer', side, numbers))
                         for side, writer in enumerate(self.writers))))
    outcomes = [outcome(*two) for two in answers]
    left = [place for place, each in enumerate(outcomes) if each == 'judged']
    found = dict(zip(left, self._judged([asked[place] for place in left], [answers[place] for place in left])))
    return [{'number': number, 'id': question.id, 'question': [message._asdict() for message in question.messages],
             'answers': [answer.text for answer in two]} | found.get(place, {'outcome': each})
            for place, (number, question, two, each) in enumerate(zip(numbers, asked, answers, outcomes))]

  def _judged(self, asked: Sequence[Question], answers: Sequence[tuple[Said, Said]]) -> list[Record]:
    """For each pair the judge's log-probs and the label, the probability that the first answer is the better."""
    talks = [self.of.ballot(question.messages, first.text, second.text, principle)
             for question, two in zip(asked, answers) for principle in self.of.principles for first, second in (two, two[::-1])]
    if not talks:
      return []
    logps = self.judge.weigh(talks, self.of.ballot.options).round(DIGITS)       # labels are made of the numbers as written
    logps_BNO2 = logps.reshape(len(asked), len(self.of.principles), len(ORDERS), 2)
    return [self._told(logps_NO2) for logps_NO2 in logps_BNO2]

  def _told(self, logps_NO2: np.ndarray) -> Record:
    """A pair's log-probs by principle and order, and its label."""
    if np.isnan(logps_NO2).any():
      return {'outcome': 'left out: too long for the judge'}
    judged = [{'principle': principle.id, 'shown': shown, 'logp': logps_2.tolist()}
              for principle, logps_O2 in zip(self.of.principles, logps_NO2) for shown, logps_2 in zip(ORDERS, logps_O2)]
    return {'outcome': 'judged', 'judged': judged, 'label': label(logps_NO2, self.of.clamp)}


def outcome(first: Said, second: Said) -> str:
  """`judged`, or why two answers are no pair."""
  if first.text.strip() == second.text.strip():
    return 'left out: alike'
  if not first.text.strip() or not second.text.strip():
    return 'left out: one says nothing'
  return 'left out: one is cut off by the limit' if first.cut or second.cut else 'judged'


def pair(record: Record) -> Record:
  """A line of `PairLines`, in which the likelier answer is the chosen one."""
  chosen, rejected = record['answers'] if record['label'] >= 0.5 else record['answers'][::-1]
  return {'messages': record['question'], 'chosen': chosen, 'rejected': rejected,
          'label': max(record['label'], 1.0 - record['label'])}
