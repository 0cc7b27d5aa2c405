"""Answers that a critic mended: sample, critique, revise, again and again (Bai et al. 2022, section 3).

    revisions = Revisions(name='revisions', questions=red, principles=PRINCIPLES, writer=ByRun(chat), critic=ByRun(chat))
    Corpus(name='revised', sources=(Revised(revisions),), stages=())          conversations, as any others are

Fine-tuning on nothing but these makes a model that refuses everything: mix them with helpful data (`Mixture`).

The folder has `steps.jsonl`, a line for each question with all that was said on the way; `talks.jsonl`, of each question
and its last revision alone, the lines of `steps.jsonl` whose `outcome` is `revised`, in their order; and `table.json`, which
counts the outcomes, and for each principle how often it was drawn and how often the answer was another after it.
"""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import rich

from align import journal
from align.constitution import criticising, revising
from align.conversations import ChatLines
from align.journal import Record
from align.judge import Judge, Said
from align.principles import Principle
from align.questions import Asking, Question, Questions
from model.errors import ConfigError, DataError
from train.artifact import Artifact, Store, how, write_json
from train.data.corpus import TABLE
from train.data.readers import Reader, Written
from train.data.shuffle import key, permutation

STEPS, TALKS = 'steps.jsonl', 'talks.jsonl'


@dataclass(frozen=True, kw_only=True)
class Revisions(Artifact):
  """The first `count` training questions answered by `writer`, each answer criticised and revised by `critic`, `draws` times.

  Each time it is for another principle, in an order that the question's number decides; all have been drawn before one is
  drawn again.
  """

  questions: Asking
  principles: tuple[Principle, ...]
  writer: Judge
  critic: Judge
  count: int = 1000
  draws: int = 4
  seed: int = 0
  lot: int = how(256)                  # questions between two saves

  def __post_init__(self):
    check_principles(self.principles)
    if min(self.count, self.draws, self.lot) < 1:
      raise ConfigError('config.out-of-range', f'count = {self.count}, draws = {self.draws}, lot = {self.lot}',
                        'they count questions and principles', 'use 1 or more')

  def make(self, folder: Path, store: Store) -> None:
    """Asks, criticises and revises. Raises: DataError if not one answer came out another and whole."""
    journal.write(folder / STEPS, self.count, self.lot, Mending(self, store))
    steps = list(journal.read(folder / STEPS))
    table = counted(steps)
    write_json(folder / TABLE, table)
    rich.print(f'revisions {self.name}', *(f'  {what}: {number:,}' for what, number in table['outcomes'].items()), sep='\n')
    revised = [step for step in steps if step['outcome'] == 'revised']
    if not revised:
      raise DataError('revision.none', f'revisions {self.name}', f'of {self.count:,} answers: {table["outcomes"]}',
                      'ask a critic that follows the principles, or questions that they are about')
    journal.dump(folder / TALKS, ({'messages': [*step['question'], {'role': 'assistant', 'content': step['final']}]}
                                  for step in revised))

  def remains(self, folder: Path) -> str:
    """How far it came."""
    return f'after {journal.whole_lines(folder / f"{STEPS}.part")} of {self.count} questions'


def check_principles(principles: tuple[Principle, ...]) -> None:
  """Returns when there are some, told apart. Raises: ConfigError."""
  if not principles or len({principle.id for principle in principles}) < len(principles):
    raise ConfigError('config.principles', f'principles = {[principle.id for principle in principles]}',
                      'a constitution has at least one, each with an id of its own', 'read them with read_principles')


class Mending:
  """From numbers of questions to the records of what was made of them."""

  def __init__(self, revisions: Revisions, store: Store):
    self.of = revisions
    self.questions: Questions = revisions.questions.open(store, 'train')
    self.writer = revisions.writer.open(store)
    self.critic = self.writer if revisions.critic == revisions.writer else revisions.critic.open(store)

  def __call__(self, numbers: range) -> list[Record]:
    asked = [self.questions(number) for number in numbers]
    answers = self.writer.write([question.messages for question in asked], self._seeds(numbers, 'answer', 0))
    orders = [self._order(number) for number in numbers]
    draws: list[list[Record]] = [[] for _ in numbers]
    now = answers
    for draw in range(self.of.draws):
      principles = [order[draw % len(order)] for order in orders]
      now = self._draw(numbers, draw, asked, now, principles, draws)
    return [{'number': number, 'id': question.id, 'question': [message._asdict() for message in question.messages],
             'answer': first.text, 'draws': said, 'final': last.text, 'outcome': outcome(first, last)}
            for number, question, first, said, last in zip(numbers, asked, answers, draws, now)]

  def _draw(self, numbers: range, draw: int, asked: Sequence[Question], answers: list[Said], principles: list[Principle],
            draws: list[list[Record]]) -> list[Said]:
    """What the answers are after one more principle each; what was said for that is added to `draws`."""
    said = list(zip((question.messages for question in asked), (answer.text for answer in answers), principles))
    critiques = self.critic.write([criticising(*one) for one in said], self._seeds(numbers, 'critique', draw))
    revised = self.critic.write([revising(*one, critique.text) for one, critique in zip(said, critiques)],
                                self._seeds(numbers, 'revision', draw))
    for record, principle, critique, revision in zip(draws, principles, critiques, revised):
      record.append({'principle': principle.id, 'critique': critique.text, 'revision': revision.text})
    return revised

  def _order(self, number: int) -> list[Principle]:
    return [self.of.principles[place] for place in permutation(key(self.of.seed, 'principles', number),
                                                               len(self.of.principles))]

  def _seeds(self, numbers: range, what: str, draw: int) -> list[int]:
    return seeds(self.of.seed, what, draw, numbers)


def seeds(seed: int, what: str, which: int, numbers: Sequence[int]) -> list[int]:
  """A seed for each number, 32 bits."""
  return [key(seed, what, which, number) >> 32 for number in numbers]


def outcome(first: Said, last: Said) -> str:
  """`revised`, or why nothing is learnt from the last revision."""
  if last.text.strip() == first.text.strip():
    return 'left out: as it was at first'
  if not last.text.strip():
    return 'left out: it says nothing'
  return 'left out: cut off by the limit' if last.cut else 'revised'


def counted(steps: Sequence[Record]) -> dict[str, dict]:
  """How many questions had which outcome; of each principle how often it was drawn, and how often it changed an answer."""
  outcomes = Counter(step['outcome'] for step in steps)
  drawn: Counter[str] = Counter()
  changed: Counter[str] = Counter()
  for step in steps:
    before = step['answer']
    for draw in step['draws']:
      drawn[draw['principle']] += 1
      changed[draw['principle']] += draw['revision'].strip() != before.strip()
      before = draw['revision']
  principles = {name: {'drawn': count, 'changed': changed[name]} for name, count in sorted(drawn.items())}
  return {'outcomes': {'questions': len(steps), **dict(sorted(outcomes.items()))}, 'principles': principles}


@dataclass(frozen=True)
class Revised(Written):
  """Each question with its last revision, as a conversation: neither first answers nor critiques."""

  revisions: Revisions
  _: KW_ONLY
  source: str = 'revised'

  def reader(self, store: Store) -> Reader:
    return ChatLines(f'{glob.escape(str(store.find(self.revisions)))}/{TALKS}', source=self.source)
