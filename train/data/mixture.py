"""Several sources in one stream of rows, each in its share of the tokens, at every moment and not only in the mean.

Rows are equally long, so shares of tokens are shares of rows. Which source a row comes from is decided without chance:
after any number of rows each source is less than one row away from its share. Each goes through epochs of its own.
"""

import heapq
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from model.errors import ConfigError
from train.data.tokens import TokenFiles
from train.data.vocabulary import AnyVocabulary

FINEST = 1 << 16        # rows after which a schedule begins again, at most: shares are kept to 1 in so many


@dataclass(frozen=True)
class Share:
  """Tokens and how much of them is wanted, next to the weights of the others; with `source`, only that source's."""

  tokens: TokenFiles
  weight: float
  source: str | None = None

  def __post_init__(self):
    if not self.weight >= 0 or math.isinf(self.weight):
      raise ConfigError('mixture.negative', f'mixture: {self.label()} has weight {self.weight}',
                        'a weight says how much of a source is wanted', 'use 0 or more')

  def label(self) -> str:
    """What people call it."""
    return self.tokens.name if self.source is None else f'{self.tokens.name}/{self.source}'


@dataclass(frozen=True)
class Mixture:
  """Shares of several tokens, by tokens: `Mixture((Share(books, 3.0), Share(code, 1.0)))` is a quarter code."""

  shares: tuple[Share, ...]

  def __post_init__(self):
    if not any(share.weight > 0 for share in self.shares):
      raise ConfigError('mixture.all-zero', f'mixture of {len(self.shares)} shares', 'none has a weight above 0',
                        'give at least one of them a weight above 0')
    labels = [(share.tokens, share.source) for share in self.shares]
    for index, share in enumerate(self.shares):
      if labels.index((share.tokens, share.source)) != index:
        raise ConfigError('mixture.twice', f'mixture: {share.label()}', 'it stands there twice', 'add up its weights')

  @property
  def vocabulary(self) -> AnyVocabulary:
    return self.shares[0].tokens.vocabulary


class Schedule:
  """Which source row g comes from, and how many rows that source gave before.

  A cycle in which source i gets `quota[i]` rows, laid out by earliest deadline: the j-th row of a source comes no
  sooner than its share reaches j - 1 and no later than it reaches j. Unit jobs taken in that order meet every deadline
  that can be met, and these can (Baruah et al. 1996, "Proportionate progress").
  """

  def __init__(self, weights: tuple[float, ...]):
    self.quota = np.array(quotas(weights), np.int64)
    self.cycle = int(self.quota.sum())
    self._owner = np.array(_earliest_deadline(self.quota.tolist()))
    self._rank = np.zeros(self.cycle, np.int64)
    for source, count in enumerate(self.quota):
      self._rank[self._owner == source] = np.arange(count)

  def locate(self, row: int) -> tuple[int, int]:
    """(source, rows of that source before this one)."""
    cycles, place = divmod(row, self.cycle)
    source = int(self._owner[place])
    return source, cycles * int(self.quota[source]) + int(self._rank[place])

  def counts(self, rows: int) -> np.ndarray:
    """How many of the first `rows` rows each source gives, i64[sources]."""
    cycles, rest = divmod(rows, self.cycle)
    return cycles * self.quota + np.bincount(self._owner[:rest], minlength=len(self.quota))


def quotas(weights: tuple[float, ...]) -> list[int]:
  """Whole numbers in the proportion of the weights, as small as can be.

  Exact where their sum is at most 65,536, as it is for shares with four decimals; else they sum to about that, each at
  most one from its share, and none that is wanted at nothing.
  """
  exact = [Fraction(repr(weight)) for weight in weights]
  common = math.lcm(*(each.denominator for each in exact))
  whole = [int(each * common) for each in exact]
  whole = [each // math.gcd(*whole) for each in whole]
  total = sum(whole)
  if total <= FINEST:
    return whole
  parts = [max(each * FINEST // total, 1) if each else 0 for each in whole]
  rest = sorted(range(len(whole)), key=lambda i: (-(whole[i] * FINEST % total), i))
  for i in rest[:max(FINEST - sum(parts), 0)]:
    parts[i] += 1
  return parts


def _earliest_deadline(quota: list[int]) -> list[int]:
  """The source of each place of the cycle."""
  cycle, owners = sum(quota), []
  waiting = [(0, source, 0) for source, count in enumerate(quota) if count]    # (earliest place, source, rows so far)
  ready: list[tuple[int, int, int]] = []                                       # (deadline, source, rows so far)
  for place in range(cycle):
    while waiting and waiting[0][0] <= place:
      _, source, rows = heapq.heappop(waiting)
      heapq.heappush(ready, (-(-(rows + 1) * cycle // quota[source]), source, rows))
    _, source, rows = heapq.heappop(ready)
    owners.append(source)
    if rows + 1 < quota[source]:
      heapq.heappush(waiting, ((rows + 1) * cycle // quota[source], source, rows + 1))
  return owners
