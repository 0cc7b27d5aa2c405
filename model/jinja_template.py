"""The chat template that a published model brings, in Jinja, as a `Template` like ours: same functions, same laws.

    template = Jinja(source=chat_template)              or      template = read_template(Path('SmolLM2-135M'))
    render(template, tokenizer, messages)

The template runs in a process of its own (`model.jinja_process`) and is given a word that nobody can guess in place of each
content. What it writes is cut at these words. Its own text becomes ids as ours does, control tokens by their names; contents
go through `Tokenizer.encode` alone. So no user's text is ever looked through for control tokens, as it is where a whole
conversation is written out and parsed. Then the template is run on the real contents: unless it writes the very text that
was put together, it looks into contents (Qwen 3's cuts thoughts out of them), and the conversation is refused. Blanks that
it takes off the ends of a content are noticed, for the words stand between blanks.

An answer is what the conversation up to it has more than the prompt for it (`add_generation_prompt`), to the first control
token after its content. A template that writes an earlier answer otherwise once more is said, or prompts for something else
than what it writes (an open `<think>`), has no such answers, and its conversation is refused.
"""

import functools
import itertools
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import date
from typing import ClassVar, NamedTuple

from model.errors import DataError, demand
from model.jinja_process import Job, process_of
from model.template import ROLES, Around, Control, Message, Role, Span, Template
from model.tokenizer import Tokenizer

BLANK = '\x1f'                           # white space to Python and Jinja, that no template writes
WORD = secrets.token_hex(16)             # begins what stands for a content; a fixed one might be written by a template


class Slot(NamedTuple):
  """Where a message's content stands, with the blanks of the template before it, and which of its ends lose theirs."""

  message: int
  blanks: str
  left: bool
  right: bool

  def text(self, turns: Sequence[Message]) -> str:
    content = turns[self.message].content
    content = content.lstrip() if self.left else content
    return self.blanks + (content.rstrip() if self.right else content)


Part = str | Control | Slot


class Frame(NamedTuple):
  """A conversation without its contents: what stands there, whether assistants wrote it, and what is left off at the end."""

  spans: tuple[tuple[tuple[Part, ...], bool], ...]
  rest: str


class Names(NamedTuple):
  """What a tokenizer calls its control tokens."""

  bos: str
  eos: str
  pad: str
  every: tuple[str, ...]

  @classmethod
  def of(cls, tokenizer: Tokenizer) -> 'Names':
    names = {i: name for name, i in tokenizer.controls.items()}
    return cls(names[tokenizer.bos], names[tokenizer.eos], names[tokenizer.pad], tuple(sorted(tokenizer.controls)))


@dataclass(frozen=True)
class Jinja(Template):
  """A template in Jinja. `controls` are tokens that a tokenizer must have; `date` is the day that it is told.

  Where the template writes the name of one of the tokenizer's control tokens, that token stands. bos is put first where it
  writes none, as everywhere here.
  """

  source: str = ''
  _: KW_ONLY
  controls: tuple[str, ...] = ()
  date: str = '2024-07-26'             # a fixed one, or no two runs would be the same

  names: ClassVar[dict[Role, str]] = {role: role for role in ROLES}

  def __post_init__(self):
    demand(bool(self.source), 'Jinja.source', self.source, 'it is the text of a template',
           'give what stands under chat_template in tokenizer_config.json')
    demand(_is_day(self.date), 'Jinja.date', self.date, 'it is a day', 'write it as 2024-07-26')

  def spans(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> Iterable[Span]:
    """Raises: DataError for a conversation that the template cannot write by the laws of this module."""
    return self._filled(Names.of(tokenizer), self.turns(messages), False)

  def asking(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> Iterable[Span]:
    """Raises: DataError as `spans` does."""
    return self._filled(Names.of(tokenizer), self.turns(messages), True)

  def around(self, tokenizer: Tokenizer) -> Around:
    spans = _frame(self, Names.of(tokenizer), ('user', 'assistant'), False).spans
    (asked, _), (parts, _) = spans[:2]
    (place, slot), = ((place, part) for place, part in enumerate(parts) if isinstance(part, Slot))
    before = ''.join(part for part in parts[:place] if isinstance(part, str))
    return Around(before + slot.blanks, tuple(part for part in parts[place + 1:] if not isinstance(part, Slot)),
                  isinstance(asked[-1], Control))

  def controls_needed(self) -> frozenset[str]:
    return frozenset(self.controls)

  def accept(self, messages: Sequence[Message], where: str) -> None:
    """Raises: DataError with what the template says against messages of these roles; ConfigError if it is no Jinja."""
    try:
      _written(self, Names('', '', '', ()), tuple(role for role, _ in self.turns(messages)), False)
    except DataError as error:
      raise DataError(error.id, f'{where}: {error.what}', error.why, error.do) from None

  def write(self, names: Names, turns: Sequence[Message], ask: bool) -> str:
    """What the template writes. Raises: UserError as `Process.write` does."""
    job = Job(tuple((role, content) for role, content in turns), ask)
    return process_of(self.source, self.date, os.getpid()).write(job, {
        'bos_token': names.bos, 'eos_token': names.eos, 'pad_token': names.pad})

  def _filled(self, names: Names, turns: tuple[Message, ...], ask: bool) -> list[Span]:
    frame = _frame(self, names, tuple(role for role, _ in turns), ask)
    spans: list[Span] = [(tuple(part.text(turns) if isinstance(part, Slot) else part for part in parts), learnt)
                         for parts, learnt in frame.spans]
    text = ''.join(map(_spelt, itertools.chain(*(pieces for pieces, _ in spans)))) + frame.rest
    real = self.write(names, turns, ask)
    if text != real:
      at = next((at for at, (ours, theirs) in enumerate(zip(text, real)) if ours != theirs), min(len(text), len(real)))
      raise DataError('chat.template-looks-into-contents', f'the conversation, where {text[max(0, at - 20):at + 20]!r} should '
                      f'stand and the chat template writes {real[max(0, at - 20):at + 20]!r}',
                      'it makes something else of these contents than of others, so what it writes itself cannot be told '
                      'from what they say', 'leave such contents out, or use a template of ours')
    return spans


def _is_day(text: str) -> bool:
  try:
    return bool(date.fromisoformat(text))
  except ValueError:
    return False


def _spelt(piece) -> str:
  return piece.name if isinstance(piece, Control) else piece


@functools.lru_cache(maxsize=1024)
def _written(template: Jinja, names: Names, roles: tuple[Role, ...], ask: bool) -> str:
  """What the template writes for turns of these roles, a word in place of each content."""
  return template.write(names, [Message(role, f'{BLANK}{WORD}n{index}e{BLANK}') for index, role in enumerate(roles)], ask)


@functools.lru_cache(maxsize=1024)
def _frame(template: Jinja, names: Names, roles: tuple[Role, ...], ask: bool) -> Frame:
  """Raises: DataError for a template that leaves contents out, repeats or changes them, or whose answers are not its own."""
  whole = _written(template, names, roles, ask)
  marks = _marks(whole, names)
  _check_contents(roles, [mark.part.message for mark in marks if isinstance(mark.part, Slot)])
  cuts = [_answer(template, names, roles, place, whole) for place, role in enumerate(roles) if role == 'assistant']
  end = len(whole) if ask else _end(whole, marks, cuts[-1][1] if roles[-1] == 'assistant' else None)
  bounds = [0, *itertools.chain(*cuts), end]
  spans = tuple((tuple(_parts(whole, marks, begin, stop)), index % 2 == 1)
                for index, (begin, stop) in enumerate(itertools.pairwise(bounds)) if begin < stop)
  return Frame(spans, whole[end:])


class Mark(NamedTuple):
  """A place in what a template wrote that is no text of its own."""

  begin: int
  end: int
  part: Control | Slot


def _marks(text: str, names: Names) -> list[Mark]:
  """The contents and control tokens in it, in order; of two names that begin alike the longer."""
  slot = f'(?P<left>{BLANK}?){WORD}n(?P<index>[0-9]+)e(?P<right>{BLANK}?)'
  controls = '|'.join(map(re.escape, sorted(names.every, key=len, reverse=True)))
  return [_mark(match, text) for match in re.finditer(f'{slot}|(?:{controls})' if controls else slot, text)]


def _mark(match: re.Match[str], text: str) -> Mark:
  if match['index'] is None:
    return Mark(*match.span(), Control(match[0]))
  before = text[:match.start()]
  blanks = before[len(before.rstrip(' ')):]
  slot = Slot(int(match['index']), blanks, not match['left'], not match['right'])
  return Mark(match.start() - len(blanks), match.end(), slot)


def _parts(text: str, marks: list[Mark], begin: int, end: int) -> Iterator[Part]:
  """What stands between two places of a text."""
  for mark in marks:
    if begin <= mark.begin and mark.end <= end:
      if begin < mark.begin:
        yield text[begin:mark.begin]
      yield mark.part
      begin = mark.end
  if begin < end:
    yield text[begin:end]


def _check_contents(roles: Sequence[Role], found: Sequence[int]) -> None:
  for index, role in enumerate(roles):
    if (times := found.count(index)) != 1:
      raise DataError('chat.template-changes-contents', f'message {index + 1} of {len(roles)} is of the role {role!r}',
                      f'the chat template writes its content {times} times as it stands' if times else
                      'the chat template leaves its content out, cuts or changes it',
                      'use a template that writes each content once, or one of ours')


def _answer(template: Jinja, names: Names, roles: tuple[Role, ...], place: int, whole: str) -> tuple[int, int]:
  """Where an answer begins and ends in the whole.

  Raises: DataError if a prompt and its answer are not the beginning of the conversation, or if nothing ends the answer.
  """
  prompt = _written(template, names, roles[:place], True)
  asked = _written(template, names, roles[:place + 1], False)
  what = f'the answer that is message {place + 1} of {len(roles)}'
  marks = [mark for mark in _marks(asked, names) if mark.begin >= len(prompt)]
  found = [at for at, mark in enumerate(marks) if isinstance(mark.part, Slot)]
  if not asked.startswith(prompt) or len(found) != 1:
    raise DataError('chat.template-prompts-otherwise', what, 'with its add_generation_prompt the chat template does not begin '
                    'the answer as it writes answers', 'use a template whose prompts are beginnings of its conversations')
  end = next((mark.end for mark in marks[found[0] + 1:]), None)
  if end is None:
    raise DataError('chat.template-ends-nothing', what, 'the chat template writes no control token of the tokenizer after it, '
                    'so a model could not learn to stop', 'use the tokenizer that belongs to it')
  if not whole.startswith(asked[:end]):
    raise DataError('chat.template-rewrites', what, 'the chat template writes it, or what is before it, otherwise once more is '
                    'said, so prompt and answer are not the conversation',
                    'use conversations of one answer, or a template of ours')
  return len(prompt), end


def _end(whole: str, marks: list[Mark], answered: int | None) -> int:
  """Where the last turn ends: blanks after its last control token belong to the next turn, as they do in our templates."""
  if answered is not None:
    return answered
  last = marks[-1]
  return last.end if isinstance(last.part, Control) and not whole[last.end:].strip() else len(whole)
