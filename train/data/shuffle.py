"""Random numbers for data: each is a function of a key and an index, the same on every machine and in every version.

The generator is splitmix64 (Steele, Lea and Flood 2014) written in numpy's uint64 arithmetic, because numpy does not
promise that its own permutations stay as they are.
"""

import hashlib
import json

import numpy as np

GOLDEN, MIX_1, MIX_2 = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def key(*parts: int | str) -> int:
  """A number below 2^64 that stands for the parts: `key(seed, 'rows', epoch)`."""
  return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], 'little')


def draws(key: int, count: int) -> np.ndarray:
  """The first `count` draws of the key, u64[count], each uniform."""
  z = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
  z = (z ^ (z >> np.uint64(30))) * MIX_1
  z = (z ^ (z >> np.uint64(27))) * MIX_2
  return z ^ (z >> np.uint64(31))


def fractions(key: int, count: int) -> np.ndarray:
  """The first `count` draws of the key as f64[count] in [0, 1)."""
  return (draws(key, count) >> np.uint64(11)) * 2.0**-53


def permutation(key: int, count: int) -> np.ndarray:
  """The numbers 0 .. count - 1 in an order that the key alone decides, i64[count]."""
  return np.argsort(draws(key, count), kind='stable')
