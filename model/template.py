"""What a template for conversations is: messages in, pieces out, and which of them an assistant wrote."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

from model.tokenizer import Tokenizer

Role = Literal['system', 'user', 'assistant', 'tool']
ROLES: tuple[Role, ...] = get_args(Role)


class Message(NamedTuple):
  """What one side says. `system` sets the scene and stands first, `tool` answers what an assistant asked of a program."""

  role: Role
  content: str


class Control(NamedTuple):
  """A control token, by its name in the tokenizer."""

  name: str


class EndOfText(NamedTuple):
  """The control token with which a tokenizer ends documents; every tokenizer has one, under a name of its own."""


Piece = str | Control | EndOfText
Pieces = tuple[Piece, ...]
Span = tuple[Pieces, bool]               # what stands there, and whether assistants wrote it


class Around(NamedTuple):
  """What an assistant writes around the text of its answer: blanks before it, and what ends the turn, a control token last.

  `control`: the answer, blanks and all, follows a control token and no text.
  """

  before: str
  after: Pieces
  control: bool


@dataclass(frozen=True)
class Template(ABC):
  """How a family of models writes conversations down. `system` is for those that bring no system message; '' is none."""

  system: str = ''

  names: ClassVar[dict[Role, str]]       # what the family calls the roles that it knows
  stops: ClassVar[tuple[str, ...]] = ()  # texts that end a turn while generating, beside the end that is learnt

  @abstractmethod
  def spans(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> Iterable[Span]:
    """The conversation from its beginning to the end of its last turn, a bos before it aside."""

  @abstractmethod
  def asking(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> Iterable[Span]:
    """The same, and on to where the assistant begins to write."""

  @abstractmethod
  def around(self, tokenizer: Tokenizer) -> Around:
    """What an answer's text stands between."""

  @abstractmethod
  def controls_needed(self) -> frozenset[str]:
    """The names of the control tokens without which a tokenizer does not go with the template."""

  @abstractmethod
  def accept(self, messages: Sequence[Message], where: str) -> None:
    """Returns when the template has nothing of its own against these messages. Raises: DataError that begins with `where`."""

  def turns(self, messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages as turns, with the default system message where they bring none."""
    if self.system and messages[0].role != 'system':
      return Message('system', self.system), *messages
    return tuple(messages)
