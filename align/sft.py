"""Supervised fine-tuning on conversations: their token files, which tokens are learnt, and how long ones are cut.

    tokens = ChatTokens(name='talks-tokens', corpus=talks, vocabulary=parent.rows.vocabulary, longest=1025)
    replace(parent, name='chat', restore=parent, rows=Rows(tokens, length=1024, packing=Whole()))

That is all: `Rows` packs conversations as it packs documents, each a segment of its own with positions from 0, and
`NextToken` weighs every target by the mask that lies beside it.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rich

from align.conversations import WHOLE, Messages, check_answers, from_text
from model.chat import ChatML, Message, Rendered, Template, check, check_controls, render
from model.errors import ConfigError, DataError
from model.tokenizer import Tokenizer
from train.artifact import Store, write_json
from train.data.corpus import TABLE
from train.data.document import Split
from train.data.encoding import Encoded
from train.data.stage import Outcome, Reason, dropped
from train.data.table import Table, drawn
from train.data.tokens import TokenFiles

FIT = 'fit'


@dataclass(frozen=True)
class Answers:
  """Learns what the assistant writes, and to end each turn."""

  def __call__(self, mask_T: np.ndarray) -> np.ndarray:
    return mask_T


@dataclass(frozen=True)
class LastAnswer:
  """Learns the last answer alone; those before it are read like the questions."""

  def __call__(self, mask_T: np.ndarray) -> np.ndarray:
    *_, begin = np.flatnonzero(np.diff(mask_T.astype(np.int8), prepend=0) == 1)
    return np.where(np.arange(len(mask_T)) >= begin, mask_T, 0).astype(np.uint8)


@dataclass(frozen=True)
class Everything:
  """Learns all that stands there, questions and control tokens too."""

  def __call__(self, mask_T: np.ndarray) -> np.ndarray:
    return (np.arange(len(mask_T)) > 0).astype(np.uint8)


class NoAnswerLeft(DataError):
  """A conversation whose last question leaves no room for a token of the answer."""


class Fitted(NamedTuple):
  """A conversation cut to a length, and what was cut."""

  rendered: Rendered
  unanswered: int      # messages after the last answer, which nobody answers
  turns: int           # messages left out at the beginning
  tokens: int          # cut off the end of the last answer, its end token included


def fit(template: Template, tokenizer: Tokenizer, messages: Sequence[Message], length: int,
        where: str = 'the conversation') -> Fitted:
  """The conversation up to its last answer in at most `length` tokens.

  The system message stays; as few of the oldest turns are left out as will do, so that what is left begins with the user.
  If the last question and its answer are too long, the answer loses its end, and so the token that would end its turn.
  Raises: DataError as `check` does, or without an answer; NoAnswerLeft if no token of the answer would be left.
  """
  check(template, messages, where)
  check_answers(tuple(messages), where)
  last = max(place for place, message in enumerate(messages) if message.role == 'assistant')
  scene = messages[:int(messages[0].role == 'system')]
  turns = messages[len(scene):last + 1]
  begins = [place for place, message in enumerate(turns) if place == 0 or message.role == 'user']

  def from_turn(begin: int) -> Rendered:
    return render(template, tokenizer, (*scene, *turns[begin:]))

  begin = begins[min(bisect_left(begins, True, key=lambda begin: len(from_turn(begin).ids) <= length), len(begins) - 1)]
  ids, mask = from_turn(begin)
  if not mask[:length].any():
    raise NoAnswerLeft('chat.no-answer-left', f'{where}: {len(ids)} tokens from its last question on',
                       f'in the first {length} of them there is none of the answer', 'allow for more tokens, or leave it out')
  return Fitted(Rendered(ids[:length], mask[:length]), len(messages) - 1 - last, begin, max(0, len(ids) - length))


Pieces = list[Fitted | NoAnswerLeft]


@dataclass(frozen=True)
class Shorten:
  """Of a long conversation the end alone, as `fit` cuts it."""

  def __call__(self, template: Template, tokenizer: Tokenizer, messages: Sequence[Message], length: int, where: str) -> Pieces:
    try:
      return [fit(template, tokenizer, messages, length, where)]
    except NoAnswerLeft as error:
      return [error]


@dataclass(frozen=True)
class Divide:
  """A long conversation as several, each with the system message and as many exchanges as will do; no answer stands twice."""

  def __call__(self, template: Template, tokenizer: Tokenizer, messages: Sequence[Message], length: int, where: str) -> Pieces:
    check(template, messages, where)
    check_answers(tuple(messages), where)
    scene = messages[:int(messages[0].role == 'system')]
    turns = messages[len(scene):]
    bounds, pieces, first = [*exchanges(turns), len(turns)], [], 0

    def part(first: int, end: int) -> Messages:
      return (*scene, *turns[bounds[first]:bounds[end]])

    while first + 1 < len(bounds):
      end = first + 1
      while end + 1 < len(bounds) and len(render(template, tokenizer, part(first, end + 1)).ids) <= length:
        end += 1
      pieces += Shorten()(template, tokenizer, part(first, end), length, where)
      first = end
    return pieces


def exchanges(turns: Sequence[Message]) -> list[int]:
  """Where each exchange begins: at a user's message after an answer, if another answer follows."""
  answers = [place for place, message in enumerate(turns) if message.role == 'assistant']
  begins = [0]
  for place, message in enumerate(turns[:answers[-1]]):
    if message.role == 'user' and any(begins[-1] <= answer < place for answer in answers):
      begins.append(place)
  return begins


@dataclass(frozen=True, kw_only=True)
class ChatTokens(TokenFiles):
  """The conversations of a corpus rendered by a template, none of more than `longest` tokens, with a mask of what is learnt.

  The folder has beside the token files a `table.json`: what was read, cut, and left out.
  """

  template: Template = ChatML()
  learn: Answers | LastAnswer | Everything = Answers()
  longest: int = 2049
  long: Divide | Shorten = Divide()

  def __post_init__(self):
    if self.longest < 2:
      raise ConfigError('config.out-of-range', f'longest = {self.longest}', 'it counts tokens', 'use 2 or more')
    if odd := [stage.name for stage in (*self.corpus.stages, *self.corpus.augment) if not isinstance(stage, WHOLE)]:
      raise ConfigError('chat.stages', f'corpus {self.corpus.name!r}: {", ".join(odd)}',
                        'conversations go through a corpus as JSON, which these stages would take for prose',
                        f'use {", ".join(kind.__name__ for kind in WHOLE)} or none: stages=()')

  def make(self, folder: Path, store: Store) -> None:
    """Writes the files. Raises: DataError for a conversation that the template refuses, or if none is left to learn from."""
    tokenizer, table = self.vocabulary.load(store), Table()
    check_controls(self.template, tokenizer)
    self.write(folder, tokenizer, lambda split: self._encoded(store, split, tokenizer, table))
    counts = table.json([FIT])
    write_json(folder / TABLE, counts)
    rich.print(drawn(counts, f'conversations {self.name}'))

  def _encoded(self, store: Store, split: Split, tokenizer: Tokenizer, table: Table) -> Iterator[Encoded]:
    for document in self.corpus.documents(store.find(self.corpus), split):
      table.read.add(document)
      where = f'{document.source}:{document.id}'
      pieces = self.long(self.template, tokenizer, from_text(document.text, where), self.longest, where)
      left = [piece.rendered for piece in pieces if isinstance(piece, Fitted)]
      if left:
        table.wrote(document, split)
        table.note(0, FIT, document, Outcome((document,), 'changed', cuts(pieces)))
      else:
        table.note(0, FIT, document, dropped(document, f'no answer within {self.longest} tokens'))
      for ids, mask in left:
        yield Encoded(document.source, document.id, ids, self.learn(mask))


def cuts(pieces: Pieces) -> tuple[Reason, ...]:
  """What was done to a conversation, for a table: what, and in how many places."""
  fitted = [piece for piece in pieces if isinstance(piece, Fitted)]
  counts = {'divided into several': len(pieces) if len(pieces) > 1 else 0,
            'nobody answers the end': sum(piece.unanswered for piece in fitted),
            'oldest turns left out': sum(piece.turns for piece in fitted),
            'end of an answer cut off': sum(piece.tokens for piece in fitted),
            'question that leaves no room for an answer': len(pieces) - len(fitted)}
  return tuple(Reason(name, places, 0) for name, places in counts.items() if places)
