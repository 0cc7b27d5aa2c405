"""Preference pairs out of TFDS datasets, in either of the forms in which such sets are shared.

    TfdsPairs('mine', data_dir='shared', layout=Apart('question', 'better', 'worse'))      three fields, or more prompts
    TfdsPairs('hh_rlhf', data_dir='shared', layout=Transcripts())                          two transcripts with one beginning

They are read as `train.data.tfds_reader` reads, without TensorFlow, and each example is a pair as `PairLines` has it. TFDS
itself ships no such set: one is prepared once, as array_record, from whatever files it comes in.
"""

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import takewhile
from typing import Any, Protocol

from align.conversations import Messages
from align.preferences import pair_in, pair_text
from model.chat import Message, Role
from model.errors import ConfigError, DataError
from train.data.tfds_reader import Examples, field_of


class Layout(Protocol):
  """How an example holds a pair."""

  def __call__(self, example: dict[str, Any], where: str) -> dict[str, Any]:
    """A record as `pair_in` takes it. Raises: DataError that names what is missing."""


@dataclass(frozen=True)
class Apart:
  """Texts in fields of their own: the prompt and the two answers; perhaps a field with the margin."""

  prompt: str = 'prompt'
  chosen: str = 'chosen'
  rejected: str = 'rejected'
  margin: str | None = None

  def __call__(self, example: dict[str, Any], where: str) -> dict[str, Any]:
    record: dict[str, Any] = {name: field_of(example, getattr(self, name), where) for name in ('prompt', 'chosen', 'rejected')}
    return record if self.margin is None else record | {'margin': _number(example, self.margin, where)}


@dataclass(frozen=True)
class Transcripts:
  """Two whole conversations written out as texts, which are the same up to the last answers (Bai et al. 2022, hh-rlhf).

  A message begins with the mark `user` or `assistant`. The messages that both conversations begin with, up to the last shared
  one of the user, are the prompt, and the rest of each is its side.
  """

  chosen: str = 'chosen'
  rejected: str = 'rejected'
  user: str = '\n\nHuman:'
  assistant: str = '\n\nAssistant:'

  def __post_init__(self):
    if not self.user.strip() or not self.assistant.strip() or self.user == self.assistant:
      raise ConfigError('config.out-of-range', f'user = {self.user!r}, assistant = {self.assistant!r}',
                        'they tell who speaks', 'give two different marks')

  def __call__(self, example: dict[str, Any], where: str) -> dict[str, Any]:
    sides = [self.messages(field_of(example, name, where), f'{where}: field {name!r}') for name in (self.chosen, self.rejected)]
    shared = [one for one, _ in takewhile(lambda both: both[0] == both[1], zip(*sides))]
    while shared and shared[-1].role != 'user':
      shared.pop()
    if not shared:
      raise DataError('pair.no-shared-prompt', where, 'its two transcripts do not begin with the same question',
                      'mend the record, or let `tolerate` leave it out')
    chosen, rejected = (_dicts(side[len(shared):]) for side in sides)
    return {'messages': _dicts(shared), 'chosen': chosen, 'rejected': rejected}

  def messages(self, text: str, where: str) -> Messages:
    """The messages of a transcript. Raises: DataError where it does not begin with a mark."""
    role_of: dict[str, Role] = {self.user.strip(): 'user', self.assistant.strip(): 'assistant'}
    marks = '|'.join(map(re.escape, (self.user, self.assistant)))
    before, *rest = re.split(f'({marks})', text if re.match(marks, text) else '\n\n' + text.lstrip())
    if before.strip() or not rest:
      raise DataError('pair.no-transcript', f'{where}: {text[:40]!r}', f'it does not begin with {self.user!r}, nor with '
                      f'{self.assistant!r}', 'say in the layout how its messages begin')
    return tuple(Message(role_of[mark.strip()], said.strip()) for mark, said in zip(rest[::2], rest[1::2]))


def _dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
  return [message._asdict() for message in messages]


def _number(example: dict[str, Any], field: str, where: str) -> float:
  if field not in example:
    raise DataError('data.no-such-field', f'{where}: field {field!r}',
                    f'the record has {", ".join(map(repr, sorted(example)))}', 'name the field that holds the margin')
  try:
    return float(example[field])
  except (TypeError, ValueError):
    raise DataError('pair.bad-number', f'{where}: field {field!r} is {example[field]!r:.60}', 'a margin is a number',
                    'mend it, or leave margin out of the layout') from None


@dataclass(frozen=True)
class TfdsPairs(Examples):
  """One pair for each example of a split."""

  layout: Apart | Transcripts = Transcripts()
  _: KW_ONLY
  source: str = 'pairs'

  def text(self, example: dict[str, Any], where: str) -> str:
    return pair_text(pair_in(self.layout(example, where), where))
