"""Which positions of a row lie with which device of a ring: in line, or folded so that causal rows are equal work for all.

    in line, of three devices    0    1    2      the last sees five times as many keys as the first
    zig-zag, of halves           0    1    2
                                 5    4    3      each sees 6 halves, and 2 of any other device's: no step of the ring waits

After Zhu 2024 (zigzag ring attention) and Llama 3 (2024); Brandon et al. 2023 (Striped Attention) deal single positions
instead, where a range of keys would no longer be a range. Here it is one still: what a row sees of two chunks that lie
together goes on from the end of the one to the beginning of the other, for it sees all that is between them.

Letters: B rows, L positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from kernels.ranges import Kind


class Order(Protocol):
  """How the positions of a row lie with the devices along an axis of the mesh."""

  @property
  def n(self) -> int:
    """How many devices."""

  def begins(self, device: jax.Array | int, held: int) -> Sequence[jax.Array | int]:
    """Where the chunks begin that the device holds, `held` positions in all."""

  def sees(self, kind: Kind, held: int) -> int:
    """How many devices next before it, itself among them, hold keys that rows of one can see."""

  def there(self, x: jax.Array, axis: str) -> jax.Array:
    """A device's part of [B, L, ...] that lies in line to its part in this order."""

  def back(self, x: jax.Array, axis: str) -> jax.Array:
    """The way back."""


@dataclass(frozen=True)
class InLine:
  """One chunk each, as arrays lie that are cut along a dimension: nothing moves, and a window bounds who is seen."""

  n: int

  def begins(self, device, held):
    return (device * held,)

  def sees(self, kind, held):
    return self.n if not kind.causal or kind.before is None else min(self.n, 1 - -kind.before // held)

  def there(self, x, axis):
    return x

  def back(self, x, axis):
    return x


@dataclass(frozen=True)
class ZigZag:
  """The chunks i and 2n-1-i for device i.

  In line a device has an even chunk and the odd one after it. Even chunks go to n different devices and so do odd ones:
  two permutations, each way.
  """

  n: int

  def begins(self, device, held):
    return device * (held // 2), (2 * self.n - 1 - device) * (held // 2)

  def sees(self, kind, held):
    return self.n

  def there(self, x, axis):
    halves = jnp.split(x, 2, 1)
    moved = (jax.lax.ppermute(half, axis, self._moves(odd)) for odd, half in enumerate(halves))
    return _turned(jnp.concatenate(list(moved), 1), axis)

  def back(self, x, axis):
    halves = jnp.split(_turned(x, axis), 2, 1)
    moves = ([(to, come) for come, to in self._moves(odd)] for odd in (0, 1))
    return jnp.concatenate([jax.lax.ppermute(half, axis, each) for half, each in zip(halves, moves)], 1)

  def _moves(self, odd):
    """From where to where the even or the odd chunks go."""
    return [(i, min(2 * i + odd, 2 * self.n - 1 - 2 * i - odd)) for i in range(self.n)]


def _turned(x, axis):
  """On odd devices the halves change places: there the odd chunk is the earlier one."""
  return jnp.where(jax.lax.axis_index(axis) % 2 == 1, jnp.roll(x, x.shape[1] // 2, 1), x)


def order_of(kind: Kind, n: int, length: int) -> Order:
  """Zig-zag where rows are causal and look back over all of several devices, and where positions divide into 2n chunks."""
  folds = n > 1 and length % (2 * n) == 0 and kind.causal and InLine(n).sees(kind, length // n) == n
  return ZigZag(n) if folds else InLine(n)


def rows_of(order: Order, device: jax.Array | int, held: int, x_BL: jax.Array) -> jax.Array:
  """Of a number for each position of the row, those of the positions that the device holds: [B, held]."""
  begins = order.begins(device, held)
  return jnp.concatenate([jax.lax.dynamic_slice_in_dim(x_BL, begin, held // len(begins), 1) for begin in begins], 1)


def places_of(order: Order, device: jax.Array | int, held: int, bound_BL: jax.Array) -> jax.Array:
  """How many of the keys that the device holds come before each bound of a range: the same bound, in that device's keys."""
  begins = order.begins(device, held)
  size = held // len(begins)
  return sum((jnp.clip(bound_BL - begin, 0, size) for begin in begins), jnp.zeros_like(bound_BL))
