"""Messages to token ids: the one renderer that fine-tuning, rollouts, evaluation and serving share.

    Message('user', 'Hi'), Message('assistant', 'Hello')

    <|bos|> <|im_start|> user \\n Hi <|im_end|> \\n <|im_start|> assistant \\n Hello <|im_end|>        ChatML, piece by piece
       0         0        0   0  0     0       0       0           0       0    1       1            the mask

A conversation is never written out as one text and parsed again. Control tokens stand in templates alone, by their names,
and become ids through `Tokenizer.controls`; all words, a user's or a template's, go through `Tokenizer.encode`, which
gives no control id whatever they say. What a template writes between two turns comes before the header of the later one,
so that a prompt and the answer to it are, id for id, the conversation: `prompt(before) + answer == render(all)`.

Templates are of two kinds: those of families that are known here, made of a header and an end for each turn (`Headed`), and
those that a published model brings in Jinja (`model.jinja_template`).
"""

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from model.errors import DataError
from model.template import ROLES, Around, Control, EndOfText, Message, Piece, Pieces, Role, Span, Template
from model.tokenizer import TURN_END, TURN_START, Tokenizer

__all__ = ['ROLES', 'ChatML', 'Control', 'EndOfText', 'Endings', 'Gemma', 'Headed', 'Llama3', 'Message', 'Pieces', 'Plain',
           'Rendered', 'Role', 'Template', 'check', 'check_controls', 'ends', 'prompt', 'render', 'reply']


class Rendered(NamedTuple):
  """A conversation in ids i32[T]; mask u8[T] is 1 on what assistants wrote, the token that ends their turn included."""

  ids: np.ndarray
  mask: np.ndarray


class Endings(NamedTuple):
  """What ends a turn while it is generated: `generate(..., eos=it.eos, stop=it.stop)`."""

  eos: int
  stop: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Headed(Template):
  """A template in which each turn is a header, a text and an end."""

  between: ClassVar[Pieces] = ()         # what lies between the end of a turn and the header of the next
  alternates: ClassVar[bool] = False     # user and assistant take turns, and the user begins

  @abstractmethod
  def header(self, name: str) -> Pieces:
    """What announces a turn."""

  @abstractmethod
  def end(self, role: Role) -> Pieces:
    """What its writer closes a turn with."""

  def content(self, text: str) -> str:
    """A message's text as it stands in the turn."""
    return text

  def spans(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> Iterator[Span]:
    for index, (role, content) in enumerate(self.turns(messages)):
      yield (*(self.between if index else ()), *self.header(self.names[role])), False
      yield (self.content(content), *self.end(role)), role == 'assistant'

  def asking(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> Iterator[Span]:
    if self.alternates and messages[-1].role != 'user':
      raise DataError('chat.order', f'message {len(messages)} of {len(messages)} is of the role {messages[-1].role!r}',
                      f'in {type(self).__name__} an answer follows a user message', 'end with a user message')
    yield from self.spans(tokenizer, messages)
    yield (*self.between, *self.header(self.names['assistant'])), False

  def around(self, tokenizer: Tokenizer) -> Around:
    *_, last = (*self.end('user'), *self.between, *self.header(self.names['assistant'])) or ('',)
    return Around(self.content(''), self.end('assistant'), not isinstance(last, str))

  def controls_needed(self) -> frozenset[str]:
    pieces = (*self.between, *(piece for role, name in self.names.items() for piece in (*self.header(name), *self.end(role))))
    return frozenset(piece.name for piece in pieces if isinstance(piece, Control))

  def accept(self, messages: Sequence[Message], where: str) -> None:
    if not self.alternates:
      return
    begin = int(messages[0].role == 'system')
    for index, (role, _) in enumerate(messages[begin:]):
      if role != ('user', 'assistant')[index % 2]:
        raise DataError('chat.order', f'{where}: message {begin + index + 1} of {len(messages)} is of the role {role!r}',
                        f'in {type(self).__name__} user and assistant take turns, the user first',
                        'join messages of one side, or use another template')
    if len(messages) == begin:
      raise DataError('chat.no-user', where, f'{type(self).__name__} writes a system message into the first user turn',
                      'add a user message')


@dataclass(frozen=True)
class ChatML(Headed):
  """`<|im_start|>role, newline, text<|im_end|>, newline`: Qwen, SmolLM and many others."""

  names: ClassVar = {'system': 'system', 'user': 'user', 'assistant': 'assistant', 'tool': 'tool'}
  between = ('\n',)

  def header(self, name: str) -> Pieces:
    return Control(TURN_START), name, '\n'

  def end(self, role: Role) -> Pieces:
    return (Control(TURN_END),)


@dataclass(frozen=True)
class Llama3(Headed):
  """Llama 3's: the role between two control tokens, an empty line, the text without blanks around it, `<|eot_id|>`."""

  names: ClassVar = {'system': 'system', 'user': 'user', 'assistant': 'assistant', 'tool': 'ipython'}

  def header(self, name: str) -> Pieces:
    return Control('<|start_header_id|>'), name, Control('<|end_header_id|>'), '\n\n'

  def end(self, role: Role) -> Pieces:
    return (Control('<|eot_id|>'),)

  def content(self, text: str) -> str:
    return text.strip()


@dataclass(frozen=True)
class Gemma(Headed):
  """Gemma's: no system role, so its text opens the first user turn; the assistant is called model; no tools."""

  names: ClassVar = {'user': 'user', 'assistant': 'model'}
  between = ('\n',)
  alternates = True

  def header(self, name: str) -> Pieces:
    return Control('<start_of_turn>'), name, '\n'

  def end(self, role: Role) -> Pieces:
    return (Control('<end_of_turn>'),)

  def content(self, text: str) -> str:
    return text.strip()

  def turns(self, messages: Sequence[Message]) -> tuple[Message, ...]:
    first, *rest = super().turns(messages)
    if first.role != 'system' or not rest:
      return first, *rest
    return Message('user', f'{first.content}\n\n{rest[0].content.strip()}'), *rest[1:]


@dataclass(frozen=True)
class Plain(Headed):
  """`User: text`, an empty line, `Assistant: text`: for models that know no control tokens but bos and eos.

  The blank after the colon is encoded with the text, as it is in running text. An answer is learnt to end with eos; a
  model that was never taught so goes on with the next question, which ends its turn too.
  """

  names: ClassVar = {'system': 'System', 'user': 'User', 'assistant': 'Assistant', 'tool': 'Tool'}
  between = ('\n\n',)
  stops = ('\n\nUser:',)

  def header(self, name: str) -> Pieces:
    return (f'{name}:',)

  def end(self, role: Role) -> Pieces:
    return (EndOfText(),) if role == 'assistant' else ()

  def content(self, text: str) -> str:
    return f' {text}'


def render(template: Template, tokenizer: Tokenizer, messages: Sequence[Message]) -> Rendered:
  """The whole conversation, from bos to the end of its last turn.

  Raises: DataError as `check` and `check_controls` do.
  """
  check(template, messages)
  check_controls(template, tokenizer)
  return _rendered(tokenizer, template.spans(tokenizer, messages))


def prompt(template: Template, tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
  """The conversation so far, up to where the assistant begins to write.

  Raises: DataError as `render` does, and where it is not the assistant's turn.
  """
  check(template, messages)
  check_controls(template, tokenizer)
  return _rendered(tokenizer, template.asking(tokenizer, messages)).ids.tolist()


def ends(template: Template, tokenizer: Tokenizer) -> Endings:
  """What ends the assistant's turn: the id that it learns to end with, the end of a document, and the template's stops."""
  *_, last = _encoded(tokenizer, template.around(tokenizer).after, '')
  stops = {(tokenizer.eos,), *(tuple(tokenizer.encode(text)) for text in template.stops)} - {(last,)}
  return Endings(last, tuple(sorted(stops)))


def reply(template: Template, tokenizer: Tokenizer, ids: Iterable[int]) -> Message:
  """What was generated after a prompt as the assistant's message, without what ended it."""
  eos, stop = ends(template, tokenizer)
  written = list(ids)
  ending = next((sequence for sequence in ((eos,), *stop) if tuple(written[-len(sequence):]) == sequence), ())
  before, after, control = template.around(tokenizer)
  text = tokenizer.decode_on(written[:len(written) - len(ending)], control)
  closing = ''.join(piece for piece in after if isinstance(piece, str))
  return Message('assistant', text.removeprefix(before).removesuffix(closing if ending == (eos,) else ''))


def check(template: Template, messages: Sequence[Message], where: str = 'the conversation') -> None:
  """Returns when the template can write these messages.

  Raises: DataError that begins with `where` and names the message, counted from 1.
  """
  if not messages:
    raise DataError('chat.empty', where, 'it has no messages', 'give at least one')
  known = sorted({'system', *template.names})
  for index, (role, _) in enumerate(messages):
    place = f'{where}: message {index + 1} of {len(messages)} is of the role {role!r}'
    if role not in known:
      raise DataError('chat.unknown-role', place, f'{type(template).__name__} has the roles {", ".join(known)}',
                      'use one of these, or another template')
    if role == 'system' and index:
      raise DataError('chat.late-system', place, 'a system message sets the scene, so it can only be the first',
                      'put it first, or into a user message')
  template.accept(messages, where)


def check_controls(template: Template, tokenizer: Tokenizer) -> None:
  """Returns when the tokenizer has every control token of the template. Raises: DataError that names the missing ones."""
  if missing := sorted(template.controls_needed() - tokenizer.controls.keys()):
    raise DataError('chat.no-control', f'{type(template).__name__}: {", ".join(missing)}',
                    f'the tokenizer has no control token of that name; it has {", ".join(tokenizer.controls)}',
                    'use a template of its own family; Plain goes with every tokenizer')


def _rendered(tokenizer: Tokenizer, spans: Iterable[Span]) -> Rendered:
  ids: list[int] = []
  mask: list[int] = []
  before: Piece | None = None
  for pieces, learnt in spans:
    written = _encoded(tokenizer, pieces, before)
    before = pieces[-1] if pieces else before
    ids += written
    mask += [int(learnt)] * len(written)
  bos = _opening(tokenizer, ids)
  return Rendered(np.array(bos + ids, np.int32), np.array([0] * len(bos) + mask, np.uint8))


def _encoded(tokenizer: Tokenizer, pieces: Pieces, before: Piece | None) -> list[int]:
  """The ids of pieces that follow another; nothing, None, is before the first of a conversation."""
  return [i for last, piece in itertools.pairwise((before, *pieces)) for i in _ids(tokenizer, last, piece)]


def _ids(tokenizer: Tokenizer, before: Piece | None, piece: Piece | None) -> list[int]:
  match piece:
    case Control(name):
      return [tokenizer.controls[name]]
    case EndOfText():
      return [tokenizer.eos]
    case str() if before is None:
      return tokenizer.encode(piece)
    case str():
      return tokenizer.encode_on(piece, not isinstance(before, str))
  return []


def _opening(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
  """bos, unless the first turn begins with it, or it is what ends texts: then there is none of its own (Qwen)."""
  return [] if tokenizer.bos in (tokenizer.eos, *ids[:1]) else [tokenizer.bos]
