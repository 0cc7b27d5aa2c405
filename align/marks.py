"""Marks on the tokens of documents: which of them stand in forbidden content, as a column beside the tokens.

    Marked(name='years', tokens=tokens, content=Patterns((r'\\b1[789]\\d\\d\\b',)), ...)

Content is looked for in the text that the ids of a document stand for, and found characters become tokens by the bytes that
both stand for, so a token is marked if it has any byte of a find, wherever in it the find begins. A control token ends a
text: nothing is found across the turns of a conversation. The folder has for each split

    train.forbidden.npy   u8[tokens]: 1 on marked ones          marks.json   a sha256 of each
"""

import hashlib
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import rich

from align.forbidden import Content
from model.errors import ConfigError
from model.tokenizer import Tokenizer
from train.artifact import Store, digest, write_json
from train.data.columns import read_column, write_column
from train.data.document import SPLITS, Split
from train.data.pack import Span, lay
from train.data.token_files import TokenSplit
from train.data.tokens import TokenFiles

MARKS = 'marks.json'


def mark(content: Content, tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
  """u8[T]: 1 for each token that has any byte of forbidden content."""
  sizes = tokenizer.bytes_of[ids]
  marks = np.zeros(len(ids), np.uint8)
  bounds = [-1, *np.flatnonzero(sizes == 0).tolist(), len(ids)]
  for before, end in pairwise(bounds):
    if end - before > 1:
      marks[before + 1:end] = _marked(content, tokenizer.decode_bytes(ids[before + 1:end].tolist()), sizes[before + 1:end])
  return marks


def _marked(content: Content, text: bytes, sizes: np.ndarray) -> np.ndarray:
  """The marks of tokens that stand for `sizes` bytes each of a text; bytes that are no UTF-8 count as a character each."""
  words = text.decode('utf-8', 'surrogateescape')
  byte_of, ends = places(words), np.cumsum(sizes)
  marks = np.zeros(len(sizes), np.uint8)
  for begin, end in content.finds(words):
    first, last = np.searchsorted(ends, [byte_of[begin], byte_of[end] - 1], 'right')
    marks[first:last + 1] = 1
  return marks


def places(words: str) -> np.ndarray:
  """i64[characters + 1]: the byte of the UTF-8 at which each character begins, and where the last one ends."""
  points = np.frombuffer(words.encode('utf-32-le', 'surrogatepass'), np.uint32)
  sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
  escaped = (points >= 0xDC80) & (points <= 0xDCFF)
  return np.concatenate([[0], np.cumsum(np.where(escaped, 1, sizes))])


@dataclass(frozen=True)
class MarkedSplit(TokenSplit):
  """An open split with its marks."""

  marks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))      # u8[tokens]
  hashed: str = ''                                                              # of the marks

  def row(self, spans: list[Span], starts: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """The columns of a row and forbidden f32[length + 1]: 1 on marked tokens."""
    return super().row(spans, starts, length) | {'forbidden': lay(spans, self.marks, starts, length).astype(np.float32)}

  @property
  def sha256(self) -> str:
    return hashlib.sha256(f'{super().sha256}{self.hashed}'.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Marked(TokenFiles):
  """Tokens, of a text or of conversations, and which of them are forbidden; `marked` makes one."""

  tokens: TokenFiles
  content: Content

  def __post_init__(self):
    if any(digest(getattr(self, name)) != digest(getattr(self.tokens, name)) for name in ('corpus', 'vocabulary')):
      raise ConfigError('forbidden.other-tokens', f'{self.name}: tokens = {self.tokens.name}',
                        'its corpus and vocabulary are those of its tokens', 'use marked(tokens, content)')

  def make(self, folder: Path, store: Store) -> None:
    """Writes the marks alone; the tokens stay where they are."""
    tokenizer, hashes = self.vocabulary.load(store), {}
    for split in SPLITS:
      tokens = self.tokens.open(store, split)
      marks = [mark(self.content, tokenizer, tokens.ids[begin:end])
               for begin, end in zip(tokens.offsets.tolist(), tokens.offsets[1:].tolist())]
      column = np.concatenate([np.zeros(0, np.uint8), *marks])
      hashes[split] = write_column(folder, split, 'forbidden', column)
      rich.print(f'{self.name}, {split}: {int(column.sum()):,} of {len(column):,} tokens in '
                 f'{sum(bool(each.any()) for each in marks):,} of {len(marks):,} documents are forbidden')
    write_json(folder / MARKS, hashes)

  def open(self, store: Store, split: Split) -> MarkedSplit:
    """The tokens of a split with their marks. Raises: DataError if they are not as they were written."""
    tokens = self.tokens.open(store, split)
    marks, wanted = read_column(store.find(self), split, 'forbidden', MARKS, len(tokens.ids))
    return MarkedSplit(**{each.name: getattr(tokens, each.name) for each in fields(TokenSplit)}, marks=marks, hashed=wanted)


def marked(tokens: TokenFiles, content: Content, name: str = '') -> Marked:
  """Those tokens with marks; without a name it is the tokens' own and `-marked`."""
  return Marked(name=name or f'{tokens.name}-marked', corpus=tokens.corpus, vocabulary=tokens.vocabulary, tokens=tokens,
                content=content)
