"""Layouts: how a parameter of ours is made of published tensors, and back. Each is a pair of inverse functions.

Published linear layers are [out, in] and apart; ours are [in, out...] and fused as one matmul uses them (`model.attention`,
`model.mlp`). Letters: D width, H query heads, G key heads, K head size, F hidden units.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.config import Attention

Parts = Sequence[np.ndarray]


class Layout(ABC):
  """From published parts to ours and back."""

  @abstractmethod
  def ours(self, parts: Parts) -> np.ndarray:
    """Our array."""

  @abstractmethod
  def theirs(self, w: np.ndarray) -> list[np.ndarray]:
    """The parts, to the bit those that it was made of."""


@dataclass(frozen=True)
class Same(Layout):
  """One part, as it is."""

  def ours(self, parts: Parts) -> np.ndarray:
    return parts[0]

  def theirs(self, w: np.ndarray) -> list[np.ndarray]:
    return [w]


@dataclass(frozen=True)
class Turned(Layout):
  """[out, in] -> [in, out]."""

  def ours(self, parts: Parts) -> np.ndarray:
    return parts[0].T

  def theirs(self, w: np.ndarray) -> list[np.ndarray]:
    return [w.T]


@dataclass(frozen=True)
class Heads(Layout):
  """q [HK, D], k [GK, D], v [GK, D] -> [D, G, H/G + 2, K]; or their biases, without D."""

  attention: Attention

  def ours(self, parts: Parts) -> np.ndarray:
    groups, size = self.attention.kv_heads, self.attention.head_size
    split = [part.reshape(groups, -1, size, *part.shape[1:]) for part in parts]
    return np.moveaxis(np.concatenate(split, 1), 3, 0) if parts[0].ndim == 2 else np.concatenate(split, 1)

  def theirs(self, w: np.ndarray) -> list[np.ndarray]:
    served = self.attention.heads // self.attention.kv_heads
    w = np.moveaxis(w, 0, 3) if w.ndim == 4 else w
    return [part.reshape(-1, *w.shape[3:]) for part in np.split(w, (served, served + 1), 1)]


@dataclass(frozen=True)
class Out(Layout):
  """[D, HK] -> [H, K, D]."""

  attention: Attention

  def ours(self, parts: Parts) -> np.ndarray:
    return parts[0].T.reshape(self.attention.heads, self.attention.head_size, -1)

  def theirs(self, w: np.ndarray) -> list[np.ndarray]:
    return [w.reshape(-1, w.shape[-1]).T]


@dataclass(frozen=True)
class Gates(Layout):
  """gate [F, D] and up [F, D] -> [D, 2, F]; or their biases, without D."""

  def ours(self, parts: Parts) -> np.ndarray:
    return np.stack([part.T for part in parts], -2)

  def theirs(self, w: np.ndarray) -> list[np.ndarray]:
    return [w[..., 0, :].T, w[..., 1, :].T]


@dataclass(frozen=True)
class Joined(Layout):
  """One part that holds what `inner` wants apart, one after another along the first axis, in these shares of it."""

  inner: Layout
  sizes: tuple[int, ...]

  def ours(self, parts: Parts) -> np.ndarray:
    return self.inner.ours(np.split(parts[0], np.cumsum(self.sizes)[:-1]))

  def theirs(self, w: np.ndarray) -> list[np.ndarray]:
    return [np.concatenate(self.inner.theirs(w))]


@dataclass(frozen=True)
class InputMajor(Layout):
  """Parts that are [in, out], as GPT-2 stores them, where `inner` wants [out, in]."""

  inner: Layout

  def ours(self, parts: Parts) -> np.ndarray:
    return self.inner.ours([part.T for part in parts])

  def theirs(self, w: np.ndarray) -> list[np.ndarray]:
    return [part.T for part in self.inner.theirs(w)]


@dataclass(frozen=True)
class PerHead(Layout):
  """One part [H * 3 * K, D] in which q, k and v of a head lie side by side (GPT-NeoX), where `inner` wants the three."""

  inner: Heads

  def ours(self, parts: Parts) -> np.ndarray:
    [w], heads, size = parts, self.inner.attention.heads, self.inner.attention.head_size
    split = w.reshape(heads, 3, size, *w.shape[1:])
    return self.inner.ours([split[:, i].reshape(-1, *w.shape[1:]) for i in range(3)])

  def theirs(self, w: np.ndarray) -> list[np.ndarray]:
    heads, size = self.inner.attention.heads, self.inner.attention.head_size
    parts = [part.reshape(heads, size, *part.shape[1:]) for part in self.inner.theirs(w)]
    both = np.stack(parts, 1)
    return [both.reshape(-1, *both.shape[3:])]


@dataclass(frozen=True)
class Experts(Layout):
  """The parts of each expert, expert after expert -> [E, ...] of what `inner` makes of those of one."""

  inner: Layout
  count: int

  def ours(self, parts: Parts) -> np.ndarray:
    each = len(parts) // self.count
    return np.stack([self.inner.ours(parts[begin:begin + each]) for begin in range(0, len(parts), each)])

  def theirs(self, w: np.ndarray) -> list[np.ndarray]:
    return [part for expert in w for part in self.inner.theirs(expert)]
