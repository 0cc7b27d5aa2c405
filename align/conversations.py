"""Conversations as documents, so that a corpus reads, splits, counts and keeps them as it does any text.

A conversation's text is its messages in JSON, `[{"role": "user", "content": "Hi"}, ...]`. So it is held out by a hash of
all that is said in it, duplicates are found, and a corpus's table says what was left out and why:

    Corpus(name='talks', sources=(ChatLines('talks/*.jsonl'),), stages=(Turns(2), ExactDuplicates()))

Stages for prose (`ENGLISH`) do not suit such a corpus, for they would read the JSON as prose; those of `WHOLE` do.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from model.chat import ROLES, Message
from model.errors import ConfigError, DataError
from train.data.decontaminate import Decontaminate
from train.data.document import Document
from train.data.files import whole
from train.data.readers import Lines, text_in
from train.data.stage import InOrder, Local, Outcome, dropped, kept

Messages = tuple[Message, ...]


def to_text(messages: Sequence[Message]) -> str:
  """A conversation as the text of a document; equal messages give equal bytes."""
  return json.dumps([message._asdict() for message in messages], ensure_ascii=False, separators=(',', ':'))


def from_text(text: str, where: str) -> Messages:
  """The messages that `to_text` wrote. Raises: DataError for any other text."""
  try:
    value = json.loads(text)
  except ValueError:
    value = None
  if not isinstance(value, list):
    raise DataError('chat.no-messages', where, f'its text is no conversation: {text[:60]!r}',
                    'read conversations with ChatLines or another reader of them, through stages that leave them whole')
  return messages_in(value, where)


def messages_in(value: list[Any], where: str) -> Messages:
  """The messages of a record. Raises: DataError that names the first bad one, counted from 1."""
  return tuple(_message(item, f'{where}: message {place} of {len(value)}') for place, item in enumerate(value, 1))


def _message(item: Any, where: str) -> Message:
  if not isinstance(item, dict) or item.keys() != {'role', 'content'}:
    has = f'it has {", ".join(map(repr, item)) or "no field at all"}' if isinstance(item, dict) else f'it is {item!r:.60}'
    raise DataError('chat.bad-message', where, has, 'write {"role": ..., "content": ...}; other fields would be lost')
  if item['role'] not in ROLES:
    raise DataError('chat.unknown-role', f'{where} is of the role {item["role"]!r:.60}', f'roles are {", ".join(ROLES)}',
                    'use one of these')
  return Message(item['role'], whole(text_in(item, 'content', where), where))


def check_answers(messages: Messages, where: str) -> None:
  """Raises: DataError if there is nothing to learn: no message, no answer, or an empty answer."""
  if not messages:
    raise DataError('chat.empty', where, 'it has no messages', 'remove it, or let `tolerate` leave it out')
  answers = [message for message in messages if message.role == 'assistant']
  if not answers:
    raise DataError('chat.no-answer', where, 'no message of it is of the role assistant', 'add an answer, or remove it')
  if not all(answer.content.strip() for answer in answers):
    raise DataError('chat.empty-answer', where, 'an answer of it says nothing', 'mend or remove it')


@dataclass(frozen=True)
class ChatLines(Lines):
  """One conversation for each line: `{"messages": [{"role", "content"}, ...]}`, or `{"prompt", "completion"}`."""

  _: KW_ONLY
  source: str = 'chats'

  def document(self, record: dict, name: str, where: str) -> Document:
    if 'messages' in record:
      if not isinstance(record['messages'], list):
        raise DataError('chat.no-messages', f'{where}: field \'messages\'', 'it holds no list', 'write a list of messages')
      messages = messages_in(record['messages'], where)
    else:
      asked, answered = (whole(text_in(record, field, where), where) for field in ('prompt', 'completion'))
      messages = (Message('user', asked), Message('assistant', answered))
    check_answers(messages, where)
    return Document(to_text(messages), self.source, name)


@dataclass(frozen=True)
class Turns(Local):
  """Drops conversations in which nobody answers, and those of fewer than `least` messages of user and assistant."""

  least: int = 2

  def __post_init__(self):
    if self.least < 1:
      raise ConfigError('config.out-of-range', f'turns.least = {self.least}', 'it counts messages', 'use 1 or more')

  def open(self) -> Callable[[Document], Outcome]:
    return self._judge

  def _judge(self, document: Document) -> Outcome:
    roles = [message.role for message in from_text(document.text, f'{document.source}:{document.id}')]
    if 'assistant' not in roles:
      return dropped(document, 'nobody answers')
    if roles.count('user') + roles.count('assistant') < self.least:
      return dropped(document, f'fewer than {self.least} turns')
    return kept(document)


WHOLE = (Turns, InOrder, Decontaminate)
"""Stages that keep or drop a conversation and leave its text as it is."""
