"""Duplicates, exact and near. Of those alike the first by the stable order stays, whatever the number of workers.

Letters: N words, M different runs of words.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from model.errors import ConfigError
from train.data.document import Document
from train.data.ngrams import hashed_words, runs
from train.data.stage import InOrder

LOW = np.uint64(0xFFFFFFFF)     # datasketch permutes 32-bit numbers
BLOCK = 1024                    # runs hashed at once: bounds the temporaries of a very long document to a few MB


@dataclass(frozen=True)
class ExactDuplicates(InOrder):
  """Drops a document whose text stood in the corpus before, byte for byte. Remembers 16 bytes a document."""

  def sign(self, document: Document) -> bytes:
    return hashlib.blake2b(document.text.encode(), digest_size=16).digest()

  def open(self) -> Callable[[bytes], str | None]:
    seen: set[bytes] = set()

    def judge(signature: bytes) -> str | None:
      if signature in seen:
        return 'exact duplicate'
      seen.add(signature)
      return None
    return judge


@dataclass(frozen=True)
class NearDuplicates(InOrder):
  """Drops a document that shares about `similarity` of its runs of `words` words with one that was kept before.

  MinHash (Broder 1997) estimates the Jaccard similarity of the two sets of runs to about 1/sqrt(permutations); locality
  sensitive hashing finds the candidates, and the estimate decides. The pages of GPT-3 and of FineWeb were thinned in
  this way. Remembers some KB a document: good for a few million documents.
  """

  words: int = 5
  similarity: float = 0.75
  permutations: int = 128
  seed: int = 1

  def __post_init__(self):
    if self.words < 1 or self.permutations < 16 or not 0 < self.similarity <= 1:
      raise ConfigError('config.out-of-range', str(self), 'words must be at least 1, permutations at least 16, and '
                        'similarity in (0, 1]', 'give such values')

  def sign(self, document: Document) -> Any:
    """The document's MinHash, or None if it has no word."""
    hashes_N = hashed_words(document.text)
    if not len(hashes_N):
      return None
    from datasketch import LeanMinHash
    minhash = _empty(self.permutations, self.seed).copy()
    low_M = (np.unique(runs(hashes_N, min(self.words, len(hashes_N)))) & LOW).tolist()
    for start in range(0, len(low_M), BLOCK):
      minhash.update_batch(low_M[start:start + BLOCK])
    return LeanMinHash(minhash)

  def open(self) -> Callable[[Any], str | None]:
    from datasketch import MinHashLSH
    index = MinHashLSH(threshold=self.similarity, num_perm=self.permutations)
    kept: list[Any] = []

    def judge(sign: Any) -> str | None:
      if sign is None:
        return None
      if any(kept[i].jaccard(sign) >= self.similarity for i in index.query(sign)):
        return f'near duplicate, similarity at least {self.similarity}'
      index.insert(len(kept), sign)
      kept.append(sign)
      return None
    return judge


@cache
def _empty(permutations: int, seed: int) -> Any:
  from datasketch import MinHash  # 0.6 s to load, and only a corpus that is being made needs it
  return MinHash(num_perm=permutations, seed=seed, hashfunc=int)
