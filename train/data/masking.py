"""Masked-LM rows: some tokens are hidden, replaced or kept, and have to be predicted.

Devlin et al. 2019, with the choice made anew each epoch (Liu et al. 2019). A fixed share of a row's tokens is chosen,
rather than each by a coin, so that a short row is never left without a target. What is chosen together is a token, a word or
a span of words. Letters: E tokens of a row that may be chosen, W words of them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model.errors import ConfigError
from model.tokenizer_words import Edges
from train.artifact import encode
from train.canonical import added
from train.data.shuffle import draws, fractions, key
from train.data.visits import Row


@dataclass(frozen=True)
class Token:
  """Each token is chosen by itself."""


@dataclass(frozen=True)
class Word:
  """All tokens of a word are chosen together; each is then hidden, replaced or kept by itself: whole-word masking (BERT)."""


@dataclass(frozen=True)
class Span:
  """Spans of words are chosen, and hidden, replaced or kept as a whole: SpanBERT (Joshi et al. 2020).

  Their length in words is geometric with parameter `stop`, at most `longest`; shorter where a text or another span begins.
  """

  stop: float = 0.2
  longest: int = 10

  def __post_init__(self):
    if not 0 < self.stop <= 1:
      raise ConfigError('config.out-of-range', f'masking.unit.stop = {self.stop}', 'it is the chance that a span ends after '
                        'a word', 'use more than 0 and at most 1; 0.2 is usual')
    if self.longest < 1:
      raise ConfigError('config.out-of-range', f'masking.unit.longest = {self.longest}', 'it counts words', 'use 1 or more')


@dataclass(frozen=True)
class Masking:
  """The share of tokens that is chosen, and the shares of these that are hidden, or replaced by a random one."""

  rate: float = 0.15                     # of the tokens that stand for text
  hidden: float = 0.8
  replaced: float = 0.1
  unit: Token | Word | Span = added(Token())      # what is chosen together

  def __post_init__(self):
    if not 0 < self.rate <= 1:
      raise ConfigError('config.out-of-range', f'masking.rate = {self.rate}', 'it is the share of tokens to foretell',
                        'use more than 0 and at most 1; 0.15 is usual')
    if min(self.hidden, self.replaced) < 0 or self.hidden + self.replaced > 1:
      raise ConfigError('config.out-of-range', f'masking.hidden = {self.hidden}, masking.replaced = {self.replaced}',
                        'they are shares of the chosen tokens; the rest is kept', 'use shares of at most 1 together')


class Words(NamedTuple):
  """The words of a row, in order."""

  bounds: np.ndarray                     # i64[W + 1]: at which of the E tokens each begins; the last is E
  texts: np.ndarray                      # i64[W]: the number of the unbroken text that it is in


class Corrupt:
  """The stage of the pipeline: a row of `length + 1` tokens becomes one of `length`, corrupted, with its targets.

  A function of (seed, record) alone, where the record counts rows through all epochs. `edges` are those of words, where
  words are chosen.
  """

  def __init__(self, masking: Masking, seed: int, bytes_of: np.ndarray, mask_id: int, edges: Edges | None = None):
    assert (edges is None) == isinstance(masking.unit, Token)
    self.masking, self.seed, self.mask_id, self.edges = masking, seed, mask_id, edges
    self.is_text = bytes_of > 0
    self.texts = np.flatnonzero(self.is_text).astype(np.int32)
    said = {name: value for name, value in encode(masking).items() if name != 'unit' or masking.unit != Token()}
    self.definition = said | {'seed': seed}

  def __call__(self, row: Row) -> Row:
    """tokens, segments, targets i32[L], mask f32[L] (1 = was chosen); at least one target where there is any text."""
    targets, segments = row['tokens'][:-1], row['segments'][:-1]
    chance = key(self.seed, 'masking', int(row['record']))
    eligible = np.flatnonzero(self.is_text[targets] & (segments > 0))
    budget = min(len(eligible), max(1, round(self.masking.rate * len(eligible))))
    if self.edges is None:
      chosen = [eligible[np.argsort(draws(chance, len(eligible)), kind='stable')[:budget]]]
    else:
      chosen = [eligible[begin:end] for begin, end in self._runs(self._words(targets, segments, eligible), budget, chance)]
    places = np.concatenate([*chosen, eligible[:0]])
    tokens, mask = targets.copy(), np.zeros(len(targets), np.float32)
    tokens[places] = self._corrupted(targets[places], chance + 1, [len(each) for each in chosen])
    mask[places] = 1.0
    return row | {'tokens': tokens, 'segments': segments, 'targets': targets, 'mask': mask}

  def _runs(self, words: Words, budget: int, chance: int) -> list[tuple[int, int]]:
    """The runs of eligible tokens that are chosen together. If every word is longer than the budget, a part of one."""
    count = len(words.texts)
    order = np.argsort(draws(chance, count), kind='stable')
    found = runs(words, order, lengths(self.masking.unit, count, key(chance, 'lengths')), budget)
    if count and not found:
      begin = int(words.bounds[order[0]])
      return [(begin, begin + budget)]
    return [(int(words.bounds[run.start]), int(words.bounds[run.stop])) for run in found]

  def _words(self, targets: np.ndarray, segments: np.ndarray, eligible: np.ndarray) -> Words:
    assert self.edges is not None
    tokens, breaks = targets[eligible], np.ones(len(eligible), bool)
    breaks[1:] = (np.diff(eligible) > 1) | (np.diff(segments[eligible]) != 0)
    begins = breaks | self.edges.begins_V[tokens]
    begins[1:] |= self.edges.ends_V[tokens[:-1]]
    return Words(np.append(np.flatnonzero(begins), len(eligible)), np.cumsum(breaks)[begins])

  def _corrupted(self, targets: np.ndarray, chance: int, sizes: list[int]) -> np.ndarray:
    """What replaces the targets, which come in runs of these sizes."""
    fate = fractions(key(chance, 'fate'), len(targets))
    if isinstance(self.masking.unit, Span):
      fate = np.repeat(fate[:len(sizes)], sizes)
    others = self.texts[draws(key(chance, 'others'), len(targets)) % np.uint64(len(self.texts))]
    replaced = fate < self.masking.hidden + self.masking.replaced
    return np.where(fate < self.masking.hidden, self.mask_id, np.where(replaced, others, targets))


def lengths(unit: Token | Word | Span, count: int, chance: int) -> np.ndarray:
  """How many words are to be chosen together from each of so many on, i64[count]: 1, or geometric up to the longest."""
  if not isinstance(unit, Span):
    return np.ones(count, np.int64)
  until = 1 - (1 - unit.stop) ** np.arange(1, unit.longest + 1)
  return 1 + np.searchsorted(until[:-1] / until[-1], fractions(chance, count), 'right')


def runs(words: Words, order: np.ndarray, longest: np.ndarray, budget: int) -> list[range]:
  """Runs of whole words with no more tokens than the budget, begun in this order, each as long as it may be and finds room."""
  sizes, taken = np.diff(words.bounds).tolist(), [False] * len(order)
  found = []
  for first in order.tolist():
    if not budget:
      break
    stop, end = first, min(first + int(longest[first]), len(sizes))
    while stop < end and not taken[stop] and words.texts[stop] == words.texts[first] and sizes[stop] <= budget:
      budget, taken[stop], stop = budget - sizes[stop], True, stop + 1
    if stop > first:
      found.append(range(first, stop))
  return found
