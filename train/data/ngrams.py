"""Words and runs of n words as 64-bit numbers: what near-duplicates, repetition and contamination are counted in.

Letters: N words of a text.
"""

import hashlib
import re
from functools import lru_cache

import numpy as np

WORD = re.compile(r'\w+')
MIX = np.uint64(0x9E3779B97F4A7C15)       # the golden ratio in 64 bits (Knuth's multiplicative hashing)


def words(text: str) -> list[str]:
  """The words of a text in lower case, without punctuation."""
  return WORD.findall(text.lower())


@lru_cache(maxsize=1)
def hashed_words(text: str) -> np.ndarray:
  """u64[N]: a number for each word of a text, the same on every machine. The last text is remembered."""
  return hashed(words(text))


def hashed(words: list[str]) -> np.ndarray:
  """u64[N]: a number for each word."""
  numbers = {word: hashlib.blake2b(word.encode(), digest_size=8).digest() for word in set(words)}
  return np.frombuffer(b''.join(map(numbers.__getitem__, words)), '<u8')


def runs(hashes_N: np.ndarray, n: int) -> np.ndarray:
  """u64[N - n + 1]: a number for each run of n words, in order; empty if there are fewer words.

  h = sum of MIX^(n-i) w_i, finished with an xor-shift so that the low bits depend on all words.
  """
  length = len(hashes_N) - n + 1
  if length <= 0:
    return np.zeros(0, np.uint64)
  total = np.zeros(length, np.uint64)
  for i in range(n):
    total = total * MIX + hashes_N[i:i + length]
  total ^= total >> np.uint64(32)
  total *= MIX
  return total ^ (total >> np.uint64(29))
