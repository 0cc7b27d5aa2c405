"""Constrained RLHF: limits on what answers may cost on average, and the Lagrange multipliers that keep them (Dai et al. 2023).

    maximise E[reward] subject to E[cost] <= most:        advantage = (A_reward - sum of m * A_cost) / (1 + sum of m)

A multiplier m >= 0 rises while the mean cost of an iteration's answers is above its limit and falls while it is below. It is
part of the source's position, not of what the optimizer learns. The cost that it sees is in its own units, never whitened.
Advantages may be whitened; m then weighs whitened ones, and is a price in units of the reward only where neither is divided.
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
  """How a Lagrange multiplier follows the costs. It remembers JSON values alone, so that a checkpoint can hold them."""

  @abstractmethod
  def begin(self) -> Memory:
    """Its memory before any cost is known."""

  @abstractmethod
  def value(self, memory: Memory) -> float:
    """The multiplier, 0 or more, that this memory stands for."""

  @abstractmethod
  def next(self, memory: Memory, excess: float) -> Memory:
    """The memory after an iteration whose mean cost was above the limit by `excess` (below it if negative)."""


@dataclass(frozen=True)
class Penalty(Multiplier):
  """A constant multiplier; 0 measures a cost without acting on it."""

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
    """The cost as a part of the jury's that weighs nothing in the reward."""
    return Part(self.name, self.cost, weight=0.0)


class Multipliers(NamedTuple):
  """The multipliers of several limits, each with its memory."""

  memories: tuple[Memory, ...]

  @classmethod
  def begin(cls, limits: Sequence[Limit]) -> 'Multipliers':
    """Before any cost is known."""
    return cls(tuple(limit.multiplier.begin() for limit in limits))

  def values(self, limits: Sequence[Limit]) -> list[float]:
    """The numbers, one for each limit."""
    return [limit.multiplier.value(memory) for limit, memory in zip(limits, self.memories)]

  def next(self, limits: Sequence[Limit], costs: Sequence[float]) -> 'Multipliers':
    """After an iteration with these mean costs."""
    return Multipliers(tuple(limit.multiplier.next(memory, cost - limit.most)
                             for limit, memory, cost in zip(limits, self.memories, costs)))


def combined(reward: np.ndarray, costs: Sequence[np.ndarray], multipliers: Sequence[float]) -> np.ndarray:
  """The advantage under limits, (A_reward - sum of m * A_cost) / (1 + sum of m): f32 of any shape. Dai et al. 2023."""
  priced = sum((np.float32(m) * cost for m, cost in zip(multipliers, costs)), np.float32(0))
  return ((reward - priced) / np.float32(1 + sum(multipliers))).astype(np.float32)
