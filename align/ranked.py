"""Pairs that a verifier ranks: of several answers of a model to one question, the best before the worst.

    ranked = Ranked(name='ranked', questions=FromTask(TASK), writer=ByRun(chat), grader=Verified(TASK))
    Corpus(name='ranked-pairs', sources=(Graded(ranked),), stages=())         pairs, as any others are

So a task whose answers can be checked gives preferences without people. The folder has `graded.jsonl`, a line for each
question with all answers and their grades; `pairs.jsonl`, the pairs of those whose `outcome` is `ranked`; and `table.json`.
"""

import glob
from collections import Counter
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import rich

from align import journal
from align.journal import Record
from align.judge import Judge
from align.preferences import PairLines
from align.questions import Asking
from align.revisions import seeds
from align.rewards import TextReward
from model.errors import ConfigError, DataError
from train.artifact import Artifact, Store, how, write_json
from train.data.corpus import TABLE
from train.data.readers import Reader, Written

GRADED, PAIRS = 'graded.jsonl', 'pairs.jsonl'


@dataclass(frozen=True, kw_only=True)
class Ranked(Artifact):
  """`group` answers to each of the first `count` training questions. The margin of a pair is the difference of its grades."""

  questions: Asking
  writer: Judge
  grader: TextReward
  group: int = 4
  count: int = 1000
  seed: int = 0
  lot: int = how(64)                   # questions between two saves

  def __post_init__(self):
    if self.group < 2 or min(self.count, self.lot) < 1:
      raise ConfigError('config.out-of-range', f'group = {self.group}, count = {self.count}, lot = {self.lot}',
                        'two answers or more are compared, counts are 1 or more', 'use for example group=4')

  def make(self, folder: Path, store: Store) -> None:
    """Asks and grades. Raises: DataError if no question has a better and a worse answer."""
    asked, writer = self.questions.open(store, 'train'), self.writer.open(store)

    def lot(numbers: range) -> list[Record]:
      questions = [asked(number) for number in numbers]
      said = [writer.write([question.messages for question in questions], seeds(self.seed, 'answer', place, numbers))
              for place in range(self.group)]
      return [record(number, [message._asdict() for message in question.messages], [answer.text for answer in answers],
                     [self.grader.score(question, answer.text) for answer in answers])
              for number, question, *answers in zip(numbers, questions, *said)]

    journal.write(folder / GRADED, self.count, self.lot, lot)
    records = list(journal.read(folder / GRADED))
    table = {'outcomes': {'questions': len(records), **dict(sorted(Counter(each['outcome'] for each in records).items()))}}
    write_json(folder / TABLE, table)
    rich.print(f'ranked {self.name}', *(f'  {what}: {number:,}' for what, number in table['outcomes'].items()), sep='\n')
    pairs = [pair(each) for each in records if each['outcome'] == 'ranked']
    if not pairs:
      raise DataError('pair.none', f'ranked {self.name}', f'of {self.count:,} questions: {table["outcomes"]}',
                      'take more answers to a question, or questions that are neither too hard nor too easy')
    journal.dump(folder / PAIRS, pairs)

  def remains(self, folder: Path) -> str:
    """How far it came."""
    return f'after {journal.whole_lines(folder / f"{GRADED}.part")} of {self.count} questions'


def record(number: int, question: list[dict[str, str]], answers: list[str], grades: list[float]) -> Record:
  """What `graded.jsonl` says of a question; answers that say nothing are none."""
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


@dataclass(frozen=True)
class Graded(Written):
  """Each pair that was ranked, with its margin."""

  ranked: Ranked
  _: KW_ONLY
  source: str = 'ranked'

  def reader(self, store: Store) -> Reader:
    return PairLines(f'{glob.escape(str(store.find(self.ranked)))}/{PAIRS}', source=self.source)
