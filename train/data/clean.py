"""Unicode clean-up, and the cutting of very long documents. Both keep the words as the author wrote them."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from model.errors import ConfigError
from train.data.document import Document
from train.data.stage import Edit, Local, Outcome, added, edited

# all but tab, line feed and form feed
CONTROL = re.compile('[\0-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufeff\ufff9-\uffff]')
ESCAPE = re.compile(r'\x1b\[[0-9;]{0,32}[A-Za-z]')                   # colours of a terminal
LINE_END = re.compile('\r\n|[\r\x85\u2028\u2029]')


@dataclass(frozen=True)
class Unicode(Local):
  """One way to write each character: lines end in \\n, no control characters, mojibake mended, composed form (NFC).

  Mojibake is UTF-8 that was once decoded as something else ("cafÃ©" for "café"); ftfy (Speer 2019) mends it by line.
  Quotes, ligatures, wide forms and HTML entities stay as they are: they are part of the text.
  """

  def open(self) -> Callable[[Document], Outcome]:
    edits: dict[str, Edit] = {'line endings': _line_ends, 'terminal escapes': _escapes, 'mojibake': _mojibake,
                              'control characters': _control, 'composed form': _composed}
    return lambda document: edited(document, edits)


def _line_ends(text: str) -> tuple[str, int]:
  return LINE_END.subn('\n', text)


def _escapes(text: str) -> tuple[str, int]:
  return ESCAPE.subn('', text) if '\x1b' in text else (text, 0)


def _control(text: str) -> tuple[str, int]:
  return CONTROL.subn('', text)


def _mojibake(text: str) -> tuple[str, int]:
  if text.isascii():
    return text, 0
  import ftfy  # 0.15 s to load, and most of the program never needs it
  lines, mended = text.split('\n'), 0
  for i, line in enumerate(lines):
    if not line.isascii():
      lines[i] = ftfy.fix_encoding(line)
      mended += lines[i] != line
  return '\n'.join(lines), mended


def _composed(text: str) -> tuple[str, int]:
  if unicodedata.is_normalized('NFC', text):
    return text, 0
  return unicodedata.normalize('NFC', text), 1


@dataclass(frozen=True)
class SplitLong(Local):
  """Documents of at most `characters`: a longer one is cut into pieces that add up to it, at paragraphs if it can."""

  characters: int = 400_000        # about 70,000 English words: less than Gopher's rules call too many

  def __post_init__(self):
    if self.characters < 2:
      raise ConfigError('config.out-of-range', f'SplitLong.characters={self.characters}', 'a piece needs some text',
                        'give at least 2')

  def open(self) -> Callable[[Document], Outcome]:
    def split(document: Document) -> Outcome:
      if len(document.text) <= self.characters:
        return Outcome((document,))
      pieces = tuple(replace(document, text=text, id=f'{document.id}/{i}')
                     for i, text in enumerate(cut(document.text, self.characters)))
      return added(document, pieces, f'longer than {self.characters:,} characters')
    return split


def cut(text: str, limit: int) -> Iterator[str]:
  """The text in pieces of at most `limit` characters; linear in its length. The pieces joined are the text."""
  start = 0
  while len(text) - start > limit:
    end = _break(text, start + limit // 2, start + limit)
    yield text[start:end]
    start = end
  yield text[start:]


def _break(text: str, low: int, high: int) -> int:
  for mark in ('\n\n', '\n', '. ', ' '):
    found = text.rfind(mark, low, high)
    if found >= 0:
      return found + len(mark)
  return high
