"""A page of text measured: the quantities that quality filters are written in. Pure functions, linear in the text."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from train.data.ngrams import hashed_words, runs, words

STOP_WORDS = frozenset(('the', 'be', 'to', 'of', 'and', 'that', 'have', 'with'))     # Rae et al. 2021
# ruff: noqa: RUF001  (the marks are meant)
BULLETS = ('•', '‣', '▪', '●', '◦', '*', '-', '–')
MARKS = ('.', '!', '?', '"', '”', "'", '’', ')', ':', ';', '…', '。', '！', '？')
SENTENCE_MARKS = ('.', '!', '?', '"', '”')
SENTENCE = re.compile(r'[.!?]["”’\')\]]{0,3}(?=\s|$)')
PARAGRAPH = re.compile(r'\n[ \t]*\n')


class Page:
  """A text and its parts, each found when first asked for."""

  def __init__(self, text: str):
    self.text = text

  @cached_property
  def tokens(self) -> list[str]:
    """What stands between white space."""
    return self.text.split()

  @cached_property
  def words(self) -> list[str]:
    """Words in lower case, without punctuation."""
    return words(self.text)

  @cached_property
  def lines(self) -> list[str]:
    return [line.strip() for line in self.text.split('\n') if line.strip()]

  @cached_property
  def paragraphs(self) -> list[str]:
    return [part.strip() for part in PARAGRAPH.split(self.text) if part.strip()]

  @cached_property
  def hashes_N(self) -> np.ndarray:
    return hashed_words(self.text)

  @cached_property
  def lengths_N(self) -> np.ndarray:
    """Characters of each word."""
    return np.fromiter(map(len, self.words), np.int64, len(self.words))


def share(parts: Sequence[str], holds: Callable[[str], bool]) -> float:
  """The share of parts for which something holds, in [0, 1]; 0 if there are no parts."""
  return sum(map(holds, parts)) / max(1, len(parts))


def mean_length(parts: Sequence[str]) -> float:
  """Characters of a part, on average; 0 if there are no parts."""
  return sum(map(len, parts)) / max(1, len(parts))


def is_bulleted(line: str) -> bool:
  return line.startswith(BULLETS)


def ends_in_ellipsis(line: str) -> bool:
  return line.endswith(('...', '…'))


def ends_in_punctuation(line: str) -> bool:
  return line.endswith(MARKS)


def ends_a_sentence(line: str) -> bool:
  return line.endswith(SENTENCE_MARKS) and not line.endswith('...')


def is_short(line: str) -> bool:
  return len(line) < 30


def has_letter(token: str) -> bool:
  return token.isalpha() or any(map(str.isalpha, token))


def ellipses(text: str) -> int:
  return text.count('...') + text.count('…')


def sentences(text: str) -> int:
  """How many sentences end in the text."""
  return len(SENTENCE.findall(text))


def repeats(parts: Sequence[str]) -> tuple[float, float]:
  """Shares of the parts, and of their characters, that stood there before: both in [0, 1]."""
  first = set(parts)
  extra = sum(map(len, parts)) - sum(map(len, first))
  return (len(parts) - len(first)) / max(1, len(parts)), extra / max(1, sum(map(len, parts)))


def most_common_share(page: Page, n: int) -> float:
  """The share of the words' characters in the most frequent run of n words (the longest, of several), or 0."""
  runs_M = runs(page.hashes_N, n)
  if not len(runs_M):
    return 0.0
  _, first_U, counts_U = np.unique(runs_M, return_index=True, return_counts=True)
  most = counts_U.max()
  length = _run_lengths(page.lengths_N, n)[first_U[counts_U == most]].max()
  return float(most * length / page.lengths_N.sum()) if most > 1 else 0.0


def repeated_share(page: Page, n: int) -> float:
  """The share of the words' characters that lie in a run of n words that stood in the page before, in [0, 1]."""
  runs_M = runs(page.hashes_N, n)
  if not len(runs_M):
    return 0.0
  again_M = np.ones(len(runs_M), bool)
  again_M[np.unique(runs_M, return_index=True)[1]] = False
  edges = np.zeros(len(page.hashes_N) + 1, np.int64)
  edges[:len(runs_M)] += again_M
  edges[n:n + len(runs_M)] -= again_M
  return float(page.lengths_N[np.cumsum(edges[:-1]) > 0].sum() / page.lengths_N.sum())


def _run_lengths(lengths_N: np.ndarray, n: int) -> np.ndarray:
  sums = np.concatenate([[0], np.cumsum(lengths_N)])
  return sums[n:] - sums[:-n]
