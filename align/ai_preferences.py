"""Preferences of a judge that reads principles: soft labels, and where each comes from (Bai et al. 2022, section 4).

    judged = AiPreferences(name='judged', questions=red, principles=PRINCIPLES, writers=(ByRun(sl), ByRun(sl)),
                           judge=ByRun(chat))
    Corpus(name='judged-pairs', sources=(Preferred(judged),), stages=())      pairs, as any others are

The judge should not be the policy that learns from it, or both drift together.

The folder has `judged.jsonl`, a line for each question: both answers, and for each principle and each order in which they were
shown the judge's log-probs of its options; `pairs.jsonl`, the pairs of those whose `outcome` is `judged`, in their order, the
likelier side first; and `table.json`, which counts the outcomes.
"""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import rich

from align import journal
from align.constitution import Ballot, label
from align.journal import Record
from align.judge import Judge, Said
from align.preferences import PairLines
from align.principles import Principle
from align.questions import Asking, Question, Questions
from align.revisions import check_principles, seeds
from model.errors import ConfigError, DataError
from train.artifact import Artifact, Store, how, write_json
from train.data.corpus import TABLE
from train.data.readers import Reader, Written

JUDGED, PAIRS = 'judged.jsonl', 'pairs.jsonl'
ORDERS = ('first, second', 'second, first')
DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class AiPreferences(Artifact):
  """Two answers to each of the first `count` training questions, one of each writer, and which the judge finds the better.

  What it finds is asked for every principle in both orders and made a label by `align.constitution.label`. Two answers that
  are alike are no pair, nor is one that says nothing or was cut off.
  """

  questions: Asking
  principles: tuple[Principle, ...]
  writers: tuple[Judge, Judge]
  judge: Judge
  ballot: Ballot = Ballot()
  clamp: tuple[float, float] | None = None
  count: int = 1000
  seed: int = 0
  lot: int = how(64)                   # questions between two saves

  def __post_init__(self):
    check_principles(self.principles)
    if min(self.count, self.lot) < 1 or (self.clamp and not 0 <= self.clamp[0] <= 0.5 <= self.clamp[1] <= 1):
      raise ConfigError('config.out-of-range', f'count = {self.count}, lot = {self.lot}, clamp = {self.clamp}',
                        'counts are 1 or more; a label is a probability, and 0.5 of one answer is 0.5 of the other',
                        'use for example None or (0.4, 0.6)')

  def make(self, folder: Path, store: Store) -> None:
    """Asks and judges. Raises: DataError if no two answers are left to compare."""
    journal.write(folder / JUDGED, self.count, self.lot, Judging(self, store))
    records = list(journal.read(folder / JUDGED))
    table = {'outcomes': {'questions': len(records), **dict(sorted(Counter(each['outcome'] for each in records).items()))}}
    write_json(folder / TABLE, table)
    rich.print(f'preferences {self.name}', *(f'  {what}: {number:,}' for what, number in table['outcomes'].items()), sep='\n')
    pairs = [pair(record) for record in records if record['outcome'] == 'judged']
    if not pairs:
      raise DataError('pair.none', f'preferences {self.name}', f'of {self.count:,} questions: {table["outcomes"]}',
                      'let two writers answer, or one at a higher temperature')
    journal.dump(folder / PAIRS, pairs)

  def remains(self, folder: Path) -> str:
    """How far it came."""
    return f'after {journal.whole_lines(folder / f"{JUDGED}.part")} of {self.count} questions'


class Judging:
  """From numbers of questions to the records of what was found."""

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
    """Of each pair what the judge said, and the label: the probability that the first answer is the better."""
    talks = [self.of.ballot(question.messages, first.text, second.text, principle)
             for question, two in zip(asked, answers) for principle in self.of.principles for first, second in (two, two[::-1])]
    if not talks:
      return []
    logps = self.judge.weigh(talks, self.of.ballot.options).round(DIGITS)       # as it is written, so is it reckoned with
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


@dataclass(frozen=True)
class Preferred(Written):
  """Each pair that was judged, with its label."""

  preferences: AiPreferences
  _: KW_ONLY
  source: str = 'judged'

  def reader(self, store: Store) -> Reader:
    return PairLines(f'{glob.escape(str(store.find(self.preferences)))}/{PAIRS}', source=self.source)
