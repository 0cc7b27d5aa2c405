"""Rows dealt into batches, and the means of a loss and of its metrics over all of them."""

from collections.abc import Iterable, Iterator
from itertools import islice

import jax
import numpy as np

from train.data.visits import Row
from train.types import Batch, Frozen, LossFn, Mean, Params


def in_batches(rows: Iterable[Row], size: int) -> Iterator[Row]:
  """All rows, `size` at a time; the last batch is filled up with rows of zeros, which weigh nothing."""
  left = iter(rows)
  while some := list(islice(left, size)):
    some += [{name: np.zeros_like(value) for name, value in some[0].items()}] * (size - len(some))
    yield {name: np.stack([row[name] for row in some]) for name in some[0]}


class Means:
  """The means of a loss and of each of its metrics over rows, the same however they are dealt into batches."""

  def __init__(self, loss_fn: LossFn, frozen: Frozen | None = None):
    def means(params: Params, frozen: Frozen, batch: Batch) -> dict[str, Mean]:
      loss = loss_fn(params, frozen, batch, jax.random.key(0))
      return {'loss': loss.objective, **loss.metrics}

    self.of, self.frozen = jax.jit(means), frozen or {}

  def __call__(self, params: Params, batches: Iterable[Row] | Iterable[Batch]) -> dict[str, float]:
    """The loss by the name `loss`, and the metrics by theirs."""
    parts = jax.device_get([self.of(params, self.frozen, batch) for batch in batches])
    return {name: float(sum(part[name].total for part in parts) / max(sum(part[name].weight for part in parts), 1e-20))
            for name in parts[0]}


def heldout(values: dict[str, float]) -> dict[str, float]:
  """The same under names that say they were measured on held-out rows."""
  return {f'heldout_{name}': value for name, value in values.items()}
