"""Decontamination: documents that quote an evaluation set leave the corpus, or the set would measure memory.

A document is dropped if it holds a run of `words` words (in lower case, without punctuation) of an item, as in GPT-3
(Brown et al. 2020, appendix C: 13 words). An item that is shorter is looked for whole, if it has at least `fewest`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import ConfigError
from train.data.document import Document
from train.data.ngrams import hashed_words, runs
from train.data.readers import Reader
from train.data.stage import Local, Outcome, dropped, kept


@dataclass(frozen=True)
class EvaluationSet:
  """Texts that a model will be judged by, under the name that the table gives as the reason."""

  name: str
  reader: Reader


@dataclass(frozen=True)
class Decontaminate(Local):
  """Drops documents that share a run of words with one of the evaluation sets."""

  against: tuple[EvaluationSet, ...]
  words: int = 13
  fewest: int = 8

  def __post_init__(self):
    names = [known.name for known in self.against]
    if not names or len(set(names)) < len(names) or not 1 <= self.fewest <= self.words:
      raise ConfigError('config.out-of-range', f'Decontaminate({names}, {self.words}, {self.fewest})',
                        'it needs evaluation sets with different names, and 1 <= fewest <= words', 'give such values')

  def files(self) -> list[Path]:
    return [path for known in self.against for path in known.reader.files()]

  def open(self) -> Callable[[Document], Outcome]:
    quoted = [(known.name, self._runs(known.reader)) for known in self.against]

    def judge(document: Document) -> Outcome:
      hashes_N = hashed_words(document.text)
      for name, known in quoted:
        if any(_shares(runs(hashes_N, n), known_M) for n, known_M in known.items()):
          return dropped(document, f'quotes {name}')
      return kept(document)
    return judge

  def _runs(self, reader: Reader) -> dict[int, np.ndarray]:
    """Sorted runs of the set's items, by their number of words."""
    found: dict[int, list[np.ndarray]] = defaultdict(list)
    for n, runs_M in self._items(reader):
      found[n].append(runs_M)
    return {n: np.unique(np.concatenate(parts)) for n, parts in found.items()}

  def _items(self, reader: Reader) -> Iterator[tuple[int, np.ndarray]]:
    for item in reader.read():
      hashes_N = hashed_words(item.text)
      if len(hashes_N) >= self.fewest:
        n = min(self.words, len(hashes_N))
        yield n, runs(hashes_N, n)


def _shares(runs_M: np.ndarray, known_M: np.ndarray) -> bool:
  places_M = np.minimum(np.searchsorted(known_M, runs_M), len(known_M) - 1)
  return bool((known_M[places_M] == runs_M).any())
