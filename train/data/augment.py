"""Augmentation: noisy copies of training documents beside the originals.

Copies are made after the split, of training documents only, and a copy whose own text would be held out is left out: no
word of a held-out document reaches training this way. Every draw is a function of (seed, kind, copy, document id).
"""

import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from model.errors import ConfigError, DataError
from train.data.document import Document
from train.data.files import decode, expand, read_lines
from train.data.stage import Local, Outcome, added

CORE = re.compile(r"\w+(?:['\u2019-]\w+)*")  # the word without the marks around it


def draws(seed: int, kind: str, copy: int, id: str) -> Random:
  """The random numbers of one copy. Only `.random()` is taken from it, whose bits no version of Python has changed."""
  return Random(f'{seed}/{kind}/{copy}/{id}')


def below(random: Random, n: int) -> int:
  """A whole number in [0, n)."""
  return int(random.random() * n)


def check_shares(**shares: float) -> None:
  """Raises: ConfigError where a share is not in [0, 1]."""
  for name, value in shares.items():
    if not 0 <= value <= 1:
      raise ConfigError('config.out-of-range', f'{name}={value}', 'it is a share', 'give a number in [0, 1]')


def with_copies(document: Document, texts: list[str], kind: str) -> Outcome:
  """The document and those of its rewritten texts that differ from it, as documents of their own."""
  copies = tuple(replace(document, text=text, id=f'{document.id}#{kind}{i}', meta=document.meta | {'augmented': kind})
                 for i, text in enumerate(texts) if text != document.text and text.strip())
  return added(document, (document, *copies), f'{kind} copies')


@dataclass(frozen=True, kw_only=True)
class Augmentation(Local):
  """A stage that adds `copies` rewritten copies of each training document."""

  copies: int = 1
  seed: int = 0

  @abstractmethod
  def rewriter(self) -> Callable[[str, Random], str]:
    """The function that rewrites one text."""

  def open(self) -> Callable[[Document], Outcome]:
    rewrite, kind = self.rewriter(), type(self).__name__.lower()

    def augment(document: Document) -> Outcome:
      texts = [rewrite(document.text, draws(self.seed, kind, i, document.id)) for i in range(self.copies)]
      return with_copies(document, texts, kind)
    return augment


@dataclass(frozen=True)
class Noise(Augmentation):
  """Copies with words swapped, deleted and doubled at random ("easy data augmentation", Wei & Zou 2019).

  Each is a share of the words; swaps stay within a line, and white space stays as it is.
  """

  swap: float = 0.05
  delete: float = 0.05
  double: float = 0.05

  def __post_init__(self):
    check_shares(swap=self.swap, delete=self.delete, double=self.double)

  def rewriter(self) -> Callable[[str, Random], str]:
    def rewrite(text: str, random: Random) -> str:
      return '\n'.join(self._line(line, random) for line in text.split('\n'))
    return rewrite

  def _line(self, line: str, random: Random) -> str:
    words = line.split(' ')
    for _ in range(sum(random.random() < self.swap for _ in words)):
      i, j = below(random, len(words)), below(random, len(words))
      words[i], words[j] = words[j], words[i]
    noisy = []
    for word in words:
      draw = random.random()
      if draw >= self.delete:
        noisy += [word, word] if draw < self.delete + self.double else [word]
    return ' '.join(noisy)


@dataclass(frozen=True)
class Synonyms(Augmentation):
  """Copies in which a `share` of the words that `path` knows is replaced by one of its synonyms (Wei & Zou 2019).

  Each line of the file has a word, a tab, and its synonyms with commas between; lines that begin with # are notes.
  """

  path: str
  share: float = 0.1

  def __post_init__(self):
    check_shares(share=self.share)

  def files(self) -> list[Path]:
    return expand(self.path)

  def rewriter(self) -> Callable[[str, Random], str]:
    known = synonyms(self.path)

    def replaced(match: re.Match, random: Random) -> str:
      word = match.group()
      choices = known.get(word.lower())
      if choices is None or random.random() >= self.share:
        return word
      chosen = choices[below(random, len(choices))]
      return chosen[0].upper() + chosen[1:] if word[0].isupper() else chosen
    return lambda text, random: CORE.sub(lambda match: replaced(match, random), text)


def synonyms(path: str) -> dict[str, list[str]]:
  """The synonyms of each word in the file. Raises: DataError naming file:line."""
  known = {}
  for file in expand(path):
    for number, data in read_lines(file):
      line = decode(data, f'{file}:{number}').strip()
      if not line or line.startswith('#'):
        continue
      word, tab, rest = line.partition('\t')
      choices = [choice.strip() for choice in rest.split(',') if choice.strip()]
      if not tab or not choices:
        raise DataError('data.bad-synonyms', f'{file}:{number}', 'it is not a word, a tab, and synonyms with commas',
                        'mend or remove the line')
      known[word.strip().lower()] = choices
  return known
