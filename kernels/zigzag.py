"""Orders of positions over the devices of ring attention: contiguous, or zig-zag, which balances causal attention.

    contiguous, three devices    0    1    2      the last device computes five times as many scores as the first
    zig-zag, of six chunks       0    1    2
                                 5    4    3      each device computes the same, in every step of the ring

After Zhu 2024 (zigzag ring attention) and Llama 3 (2024). Brandon et al. 2023 (Striped Attention) deal out single positions
instead, but then a range of keys would no longer be a range on each device. With two chunks a device it still is one: a row
that sees keys of both chunks sees everything between them, so the end of the first and the beginning of the second.

Letters: B rows, L positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from kernels.ranges import Kind


class Order(Protocol):
  """How the positions of a row are distributed over the devices along a mesh axis."""

  @property
  def n(self) -> int:
    """The number of devices."""

  def begins(self, device: jax.Array | int, held: int) -> Sequence[jax.Array | int]:
    """The first position of each chunk of a device, which holds `held` positions in all."""

  def sees(self, kind: Kind, held: int) -> int:
    """The number of steps of a ring: how many devices, itself and those before it, hold keys that its rows see."""

  def there(self, x: jax.Array, axis: str) -> jax.Array:
    """Inside shard_map, a device's part of contiguous [B, L, ...] to its part in this order."""

  def back(self, x: jax.Array, axis: str) -> jax.Array:
    """The inverse of `there`."""


@dataclass(frozen=True)
class InLine:
  """One contiguous chunk for each device, the usual sharding: nothing moves, and a window limits the steps of a ring."""

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
  """Chunks i and 2n - 1 - i of 2n for device i.

  In contiguous order a device holds an even chunk and the odd one after it. The even chunks go to n different devices, and so
  do the odd ones: each way takes two `ppermute`s.
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
    """(source, destination) devices of the even or the odd chunks, as `ppermute` takes them."""
    return [(i, min(2 * i + odd, 2 * self.n - 1 - 2 * i - odd)) for i in range(self.n)]


def _turned(x, axis):
  """x with its halves swapped on odd devices, where the odd chunk is the earlier one."""
  return jnp.where(jax.lax.axis_index(axis) % 2 == 1, jnp.roll(x, x.shape[1] // 2, 1), x)


def order_of(kind: Kind, n: int, length: int) -> Order:
  """ZigZag for causal rows whose window, if any, reaches all n > 1 devices, if 2n divides the length; else InLine."""
  folds = n > 1 and length % (2 * n) == 0 and kind.causal and InLine(n).sees(kind, length // n) == n
  return ZigZag(n) if folds else InLine(n)


def rows_of(order: Order, device: jax.Array | int, held: int, x_BL: jax.Array) -> jax.Array:
  """[B, held]: the columns of x_BL (one number per position) of the positions that the device holds."""
  begins = order.begins(device, held)
  return jnp.concatenate([jax.lax.dynamic_slice_in_dim(x_BL, begin, held // len(begins), 1) for begin in begins], 1)


def places_of(order: Order, device: jax.Array | int, held: int, bound_BL: jax.Array) -> jax.Array:
  """Bounds of ranges as indices into a device's own keys: how many of these come before each bound."""
  begins = order.begins(device, held)
  size = held // len(begins)
  return sum((jnp.clip(bound_BL - begin, 0, size) for begin in begins), jnp.zeros_like(bound_BL))
