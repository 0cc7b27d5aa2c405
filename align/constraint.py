"""Limits on what answers may cost on average, and the multipliers that keep them: constrained RLHF (Dai et al. 2023).

    maximise E[reward] subject to E[cost] <= most:        advantage = (A_reward - sum of m * A_cost) / (1 + sum of m)

A multiplier m >= 0 rises while the mean cost of an iteration's answers is above its limit and falls while it is below. It is
part of the source's position, not of what the optimizer learns; the cost that it sees is in its own units, never whitened.
Advantages may be: then m weighs them as they are, and is a price in units of the reward only where neither is divided.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from align.rewards import Part, Reward
from model.errors import demand

Memory = tuple[float, ...]             # what a multiplier remembers: JSON values


class Multiplier(ABC):
  """How a multiplier follows the costs."""

  @abstractmethod
  def begin(self) -> Memory:
    """What it remembers before any cost is known."""

  @abstractmethod
  def value(self, memory: Memory) -> float:
    """The multiplier, 0 or more."""

  @abstractmethod
  def next(self, memory: Memory, excess: float) -> Memory:
    """After an iteration whose mean cost was so much above the limit (below it if negative)."""


@dataclass(frozen=True)
class Penalty(Multiplier):
  """A price that stays as it is, whatever is paid; 0 to see a cost and not to mind it."""

  price: float

  def __post_init__(self):
    demand(self.price >= 0, 'Penalty.price', self.price, 'a negative one would reward the cost', 'use 0 or more')

  def begin(self) -> Memory:
    return ()

  def value(self, memory: Memory) -> float:
    return self.price

  def next(self, memory: Memory, excess: float) -> Memory:
    return memory


@dataclass(frozen=True)
class Dual(Multiplier):
  """Ascent on log m, so that it stays above 0: m grows by the factor exp(rate * excess).

  Dai et al. 2023, eq. 33, without its factor m, under which a multiplier that is nearly 0 hardly rises again.
  """

  start: float = 1.0
  rate: float = 0.1
  most: float = 100.0

  def __post_init__(self):
    for field in ('start', 'rate', 'most'):
      demand(getattr(self, field) > 0, f'Dual.{field}', getattr(self, field), 'it must be above zero', 'raise it')

  def begin(self) -> Memory:
    return (math.log(self.start),)

  def value(self, memory: Memory) -> float:
    return math.exp(memory[0])

  def next(self, memory: Memory, excess: float) -> Memory:
    return (min(memory[0] + self.rate * excess, math.log(self.most)),)


@dataclass(frozen=True)
class PID(Multiplier):
  """Proportional, integral and derivative control (Stooke et al. 2020): it overshoots less than the dual ascent.

  m = max(0, proportional * e + integral * sum(e) + derivative * max(0, change of the cost)), e the excess; sum(e) stays >= 0,
  and no larger than what makes `most` of it, so that a limit that could not be met for long is not paid for long afterwards.

  PID(rho, step) is the augmented Lagrangian: the gradient of ((m + rho * e)+^2 - m^2) / (2 rho), with m = step * sum(e), is
  this price times that of the cost (Hestenes 1969; Powell 1969; Rockafellar 1973).
  """

  proportional: float = 1.0
  integral: float = 0.1
  derivative: float = 0.0
  most: float = 100.0

  def __post_init__(self):
    for field in ('proportional', 'integral', 'derivative', 'most'):
      demand(getattr(self, field) >= 0, f'PID.{field}', getattr(self, field), 'it weighs an error', 'use 0 or more')

  def begin(self) -> Memory:
    return (0.0, 0.0, 0.0)

  def value(self, memory: Memory) -> float:
    error, total, change = memory
    wanted = self.proportional * error + self.integral * total + self.derivative * max(0.0, change)
    return min(max(0.0, wanted), self.most)

  def next(self, memory: Memory, excess: float) -> Memory:
    error, total, _ = memory
    held = self.most / self.integral if self.integral else math.inf
    return (excess, min(max(0.0, total + excess), held), excess - error)


@dataclass(frozen=True)
class Limit:
  """A cost by its name, and the most that it may be on average. The critic of it, if any, has the same name."""

  name: str
  cost: Reward
  most: float
  multiplier: Multiplier = PID()

  def part(self) -> Part:
    """The cost as the jury judges it: no part of the reward."""
    return Part(self.name, self.cost, weight=0.0)


class Held(NamedTuple):
  """Where the multipliers of some limits stand."""

  memories: tuple[Memory, ...]

  @classmethod
  def begin(cls, limits: Sequence[Limit]) -> 'Held':
    return cls(tuple(limit.multiplier.begin() for limit in limits))

  def values(self, limits: Sequence[Limit]) -> list[float]:
    """The multipliers."""
    return [limit.multiplier.value(memory) for limit, memory in zip(limits, self.memories)]

  def next(self, limits: Sequence[Limit], costs: Sequence[float]) -> 'Held':
    """After an iteration with these mean costs."""
    return Held(tuple(limit.multiplier.next(memory, cost - limit.most)
                      for limit, memory, cost in zip(limits, self.memories, costs)))


def combined(reward: np.ndarray, costs: Sequence[np.ndarray], multipliers: Sequence[float]) -> np.ndarray:
  """(A_reward - sum of m * A_cost) / (1 + sum of m), of any shape."""
  priced = sum((np.float32(m) * cost for m, cost in zip(multipliers, costs)), np.float32(0))
  return ((reward - priced) / np.float32(1 + sum(multipliers))).astype(np.float32)
