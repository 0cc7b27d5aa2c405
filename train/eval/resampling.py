"""How sure a figure is: the bootstrap over items (Efron 1979), of one run and of two on the same items.

Which items a resample has depends on their number alone. So two runs that were measured on the same items are resampled
alike, and the difference of their resampled figures is the paired bootstrap: what is hard for both cancels.

Letters: N items, R resamples.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from train.eval.figures import Columns, Figure

RESAMPLES = 2000
LOT = 100                # resamples at a time: memory is LOT x N numbers
INSIDE = (0.025, 0.975)


class Interval(NamedTuple):
  """A figure and the middle 95% of what it is on resampled items, or the exact interval of a share that is 0 or 1."""

  value: float
  low: float
  high: float


class Paired(NamedTuple):
  """What a second run has on a first: `better` is the share of resamples in which it is better, ties half."""

  difference: float
  low: float
  high: float
  better: float


def counts(items: int, seed: int = 0) -> Iterator[np.ndarray]:
  """How often each item is in each resample, f64[LOT, N], until there are `RESAMPLES`."""
  random = np.random.default_rng(seed)
  for _ in range(RESAMPLES // LOT):
    places_RN = random.integers(0, items, (LOT, items)) + items * np.arange(LOT)[:, None]
    yield np.bincount(places_RN.ravel(), minlength=LOT * items).reshape(LOT, items).astype(np.float64)


def resampled(figure: Figure, columns: Columns, seed: int = 0) -> np.ndarray:
  """The figure of each resample, f64[R]."""
  items = len(next(iter(columns.values())))
  return np.concatenate([figure.of(columns, counts_RN) for counts_RN in counts(items, seed)])


def interval(figure: Figure, columns: Columns) -> Interval:
  """The figure of all items, and its interval; NaN where no item has what it needs."""
  return Interval(figure(columns), *(exact(figure.averaged(columns)) or _inside(resampled(figure, columns))))


def exact(values_N: np.ndarray) -> tuple[float, float] | None:
  """The exact 95% interval of a mean of numbers from 0 to 1, where all are 0 or all are 1; None elsewhere.

  Resamples of what never varies do not vary either, but 0 of 16 does not mean never (Clopper and Pearson 1934).
  """
  alike = len(values_N) > 0 and values_N[0] in (0, 1) and (values_N == values_N[0]).all()
  if not alike:
    return None
  rare = INSIDE[0] ** (1 / len(values_N))
  return (rare, 1.0) if values_N[0] else (0.0, 1 - rare)


def paired(figure: Figure, one: Columns, other: Columns, lower: bool) -> Paired:
  """How the figure of `other` differs from that of `one` on the same items in the same order; `lower` is better or not."""
  first, second = resampled(figure, one), resampled(figure, other)
  gain_R = (first - second if lower else second - first)
  there_R = gain_R[np.isfinite(gain_R)]
  better = float(0.5 * (1 + np.sign(there_R)).mean()) if len(there_R) else np.nan
  return Paired(figure(other) - figure(one), *_inside(second - first), better)


def _inside(values_R: np.ndarray) -> tuple[float, float]:
  there_R = values_R[np.isfinite(values_R)]
  low, high = np.quantile(there_R, INSIDE) if len(there_R) else (np.nan, np.nan)
  return float(low), float(high)
