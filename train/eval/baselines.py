"""Compressors to stand beside a model: bits per byte of the same held-out documents, by gzip and by byte n-grams.

A model of text is a compressor, so its loss in bits per byte can be laid beside what anybody has at hand. gzip learns
from the held-out text alone; the n-grams learn from the training split, as the model does, and are the bar to clear.
"""

import gzip
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SYMBOL_BITS = 9               # a byte, or the end of the document
END = 256                     # sorts after every byte
LONGEST = 64 // SYMBOL_BITS   # symbols that fit in one uint64: 7


def gzip_bits_per_byte(documents: Iterable[bytes]) -> float:
  """Bits per byte of the documents one after another as a single gzip stream at level 9 (the smallest it makes)."""
  text = b''.join(documents)
  return 8 * len(gzip.compress(text, 9, mtime=0)) / len(text)


@dataclass(frozen=True)
class Ngrams:
  """Witten-Bell smoothed byte n-grams of every order up to `longest`, exactly, in 16 bytes of memory a byte of text.

  P_n(w | h) = (c(h w) + t(h) P_{n-1}(w | h')) / (c(h) + t(h)), with c(h) the number of times that a byte follows h,
  t(h) the number of different bytes that do, h' = h without its first byte and P_0 = 1/256; where nothing ever followed
  h, P_n = P_{n-1} (Witten and Bell, 1991). A document's first bytes have shorter contexts; nothing is counted across
  documents. At most seven symbols of nine bits are packed into a uint64, first symbol highest, so n-grams that start
  with a given prefix are one range of the sorted array, for every order at once.
  """

  longest: int
  grams_T: np.ndarray         # u64, sorted: the `longest` symbols that start at each byte of the training text

  @classmethod
  def fit(cls, documents: Iterable[bytes], longest: int = LONGEST) -> 'Ngrams':
    """Counts the documents: pack, then one sort; 12 MB take about half a second."""
    assert 1 <= longest <= LONGEST, f'{longest} symbols of {SYMBOL_BITS} bits do not fit in 64 bits'
    grams_T = np.concatenate([_pack(document, longest) for document in documents] or [np.zeros(0, np.uint64)])
    grams_T.sort()
    return cls(longest, grams_T)

  def probabilities(self, documents: Iterable[bytes]) -> np.ndarray:
    """f64[longest, bytes]: row n - 1 is P_n of each byte of the documents, one after another."""
    documents = list(documents)
    grams_Q = np.concatenate([_pack(document, self.longest) for document in documents])
    starts_Q = np.concatenate([np.arange(len(document)) for document in documents])
    rows, below_Q = [], np.full(len(grams_Q), 1 / 256)
    for order in range(1, self.longest + 1):
      known_K = np.flatnonzero(starts_Q >= order - 1)           # bytes that have a context of this length before them
      gram_K = grams_Q[known_K - (order - 1)] >> self._below(order)
      below_Q = below_Q.copy()
      below_Q[known_K] = self._smooth(gram_K, order, below_Q[known_K])
      rows.append(below_Q)
    return np.stack(rows)

  def bits_per_byte(self, documents: Iterable[bytes]) -> dict[int, float]:
    """Bits per byte of the documents by every order: {1: ..., ..., longest: ...}."""
    bits = -np.log2(self.probabilities(documents)).mean(axis=1)
    return {order: float(value) for order, value in enumerate(bits, start=1)}

  def _below(self, order: int) -> np.uint64:
    return np.uint64(SYMBOL_BITS * (self.longest - order))

  def _smooth(self, gram_K: np.ndarray, order: int, below_K: np.ndarray) -> np.ndarray:
    shift, one = self._below(order), np.uint64(1)
    prefix_T = self.grams_T >> shift
    fresh_T = np.concatenate([[True], prefix_T[1:] != prefix_T[:-1]])[:len(prefix_T)]
    different_T = np.concatenate([[0], np.cumsum(fresh_T, dtype=np.int64)])

    def ranges(first_K, last_K):
      first_U, place_K = np.unique(first_K, return_inverse=True)
      last_U = np.unique(last_K)                                # as many: one grows with the other
      return (np.searchsorted(self.grams_T, bound << shift)[place_K] for bound in (first_U, last_U))

    context_K = (gram_K >> np.uint64(SYMBOL_BITS)) << np.uint64(SYMBOL_BITS)
    low_K, high_K = ranges(context_K, context_K | np.uint64(END))
    followed_K, types_K = high_K - low_K, different_T[high_K] - different_T[low_K]
    low_K, high_K = ranges(gram_K, gram_K + one)
    mixed_K = (high_K - low_K + types_K * below_K) / np.maximum(followed_K + types_K, 1)
    return np.where(followed_K > 0, mixed_K, below_K)


def _pack(document: bytes, longest: int) -> np.ndarray:
  """u64[len(document)]: the `longest` symbols from each byte on, the first one highest, END behind the last byte."""
  tail = np.full(longest - 1, END, np.uint64)
  symbols = np.concatenate([np.frombuffer(document, np.uint8).astype(np.uint64), tail])
  packed = np.zeros(len(document), np.uint64)
  for place in range(longest):
    packed = (packed << np.uint64(SYMBOL_BITS)) | symbols[place:place + len(document)]
  return packed
