"""Constitutional AI, first stage: sample an answer, criticise it, revise it, several times (Bai et al. 2022, section 3).

    revisions = Revisions(name='revisions', questions=red, principles=PRINCIPLES, writer=ByRun(chat), critic=ByRun(chat))
    Corpus(name='revised', sources=(FromGenerated(revisions),), stages=())          conversations, as any others are

Fine-tuning on nothing but these makes a model that refuses everything: mix them with helpful data (`Mixture`).

A line of the folder's `steps.jsonl` has all that was said on the way; what is learnt is the question with its last revision
alone, neither first answers nor critiques (`align.generated`). `table.json` also counts for each principle how often it was
drawn and how often it changed the answer.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from align.constitution import criticising, revising
from align.conversations import ChatLines
from align.generated import Generated, seeds
from align.journal import Record
from align.judge import Judge, Said
from align.principles import Principle, check_principles
from align.questions import Question, Questions
from model.errors import demand
from train.artifact import Store, how
from train.data.shuffle import key, permutation


@dataclass(frozen=True, kw_only=True)
class Revisions(Generated):
  """Answers of `writer`, each criticised and revised by `critic`, `draws` times.

  Each draw is for another principle, in an order that depends on the question's number; none is drawn again before all were.
  """

  principles: tuple[Principle, ...]
  writer: Judge
  critic: Judge
  draws: int = 4
  lot: int = how(256)                  # questions between two saves

  records: ClassVar = 'steps.jsonl'
  lines: ClassVar = 'talks.jsonl'
  kept: ClassVar = 'revised'
  reader: ClassVar = ChatLines
  refusal: ClassVar = ('revision.none', 'ask a critic that follows the principles, or questions that they are about')

  def __post_init__(self):
    super().__post_init__()
    check_principles(self.principles)
    demand(self.draws >= 1, 'Revisions.draws', self.draws, 'it counts principles', 'use 1 or more')

  def asking(self, store: Store) -> Callable[[range], list[Record]]:
    return Mending(self, store)

  def line(self, record: Record) -> Record:
    """The question with its last revision."""
    return {'messages': [*record['question'], {'role': 'assistant', 'content': record['final']}]}

  def counted(self, records: Sequence[Record]) -> dict[str, dict]:
    """The outcomes, and the counts of `changes` for each principle."""
    return super().counted(records) | {'principles': changes(records)}


class Mending:
  """Revisions at work: a function from numbers of questions to their records."""

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
    """The answers after one more principle each; the critiques and revisions are added to `draws`."""
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


def outcome(first: Said, last: Said) -> str:
  """`revised`, or why nothing is learnt from the last revision."""
  if last.text.strip() == first.text.strip():
    return 'left out: as it was at first'
  if not last.text.strip():
    return 'left out: it says nothing'
  return 'left out: cut off by the limit' if last.cut else 'revised'


def changes(records: Sequence[Record]) -> dict[str, dict[str, int]]:
  """For each principle how often it was drawn, and how often the answer was different after it."""
  drawn: Counter[str] = Counter()
  changed: Counter[str] = Counter()
  for record in records:
    before = record['answer']
    for draw in record['draws']:
      drawn[draw['principle']] += 1
      changed[draw['principle']] += draw['revision'].strip() != before.strip()
      before = draw['revision']
  return {name: {'drawn': count, 'changed': changed[name]} for name, count in sorted(drawn.items())}
