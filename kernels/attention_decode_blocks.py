"""Block sizes and BlockSpecs of the decoding kernel, and how a program reads a block of an array, int8 or paged cache.

Letters: B rows, L query positions, S key positions, G key heads, R query heads that share one, K head size, N = L R rows of
a key head, T of them in a block, C keys of a block, I parts, Z positions of a page.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from kernels.attention_held import Coded, Held, Paged

LEAST, MOST_ROWS = 16, 64             # rows of a block: the least that tensor cores take, the most that registers hold


class Tile(NamedTuple):
  """Keys of a block, Triton's warps and pipeline stages, and how many programs are wanted in all."""

  c: int
  warps: int = 4
  stages: int = 3
  programs: int = 264                 # two for each multiprocessor of an H100


class Sizes(NamedTuple):
  """The block sizes of a call, and the BlockSpecs of its operands for the grid (I, G N / T, B)."""

  t: int
  blocks: int                         # N / T, rounded up
  c: int
  parts: int                          # I
  keys: int                           # S, or Z where there are pages
  size: int                           # K
  width: int                          # K in a program: the next power of two
  warps: int
  stages: int

  @classmethod
  def of(cls, q_BLGRK: jax.Array, k_BSGK: Held, tile: Tile) -> 'Sizes':
    batch, length, groups, shared, size = q_BLGRK.shape
    t = min(max(LEAST, pl.next_power_of_2(length * shared)), MOST_ROWS)
    blocks, keys = pl.cdiv(length * shared, t), k_BSGK.shape[1]
    c = min(tile.c, max(LEAST, pl.next_power_of_2(keys)))
    if isinstance(k_BSGK, Paged):
      page = k_BSGK.pages_PCGK.shape[1]
      if page < LEAST or page & (page - 1):
        raise ValueError(f'pages of {page} positions: use a power of two from {LEAST} on')
      c, keys = min(c, page), page
    parts = max(1, min(pl.cdiv(tile.programs, batch * groups * blocks), pl.cdiv(k_BSGK.shape[1], c)))
    return cls(t, blocks, c, parts, keys, size, max(16, pl.next_power_of_2(size)), tile.warps, tile.stages)

  def query(self) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, self.t, self.width), lambda i, h, b: (b, *self._group(h), 0))

  def notes(self) -> list[pl.BlockSpec]:
    """BlockSpecs of first, last and bounds."""
    rows = pl.BlockSpec((None, self.t), lambda i, h, b: (b, self._group(h)[1]))
    return [rows, rows, pl.BlockSpec((None, None, 2), lambda i, h, b: (b, self._group(h)[1], 0))]

  def partial(self) -> list[pl.BlockSpec]:
    """BlockSpecs of a part's results: weighted sum of values, maximum, and sum of exponentials."""
    def place(*last: int) -> pl.BlockSpec:
      return pl.BlockSpec((None, None, None, self.t, *last),
                          lambda i, h, b: (b, self._group(h)[0], i, self._group(h)[1], *(0 for _ in last)))
    return [place(self.width), place(), place()]

  def held(self, operands):
    """Keys and values with heads before positions, and the BlockSpecs of their leaves."""
    slots, places = pl.cdiv(self.keys, self.c) * self.c, []

    def place(pages: int | None, x) -> pl.BlockSpec:
      last = (self.width,) if x.ndim == 4 else ()
      return pl.BlockSpec((pages, None, slots, *last),
                          lambda i, h, b: (b if pages is None else 0, self._group(h)[0], 0, *(0 for _ in last)))

    def laid(held, pages: int | None = None):
      if isinstance(held, Paged):
        inner = laid(held.pages_PCGK, held.pages_PCGK.shape[0])
        places.append(pl.BlockSpec((None, held.table_BN.shape[1]), lambda i, h, b: (b, 0)))
        return Paged(inner, held.table_BN)
      swapped = jax.tree.map(lambda x: x.swapaxes(1, 2), held)
      places.extend(place(pages, x) for x in jax.tree.leaves(swapped))
      return swapped

    return tuple(laid(each) for each in operands), places

  def _group(self, h):
    """The key head and the block of rows of the program h of the grid's second axis."""
    return jax.lax.div(h, self.blocks), jax.lax.rem(h, self.blocks)


def block(sizes, held, j, dtype):
  """Block j of keys or values, [C, width] in `dtype`, and the scale of each position: f32[1, C], or 1."""
  page: tuple[jax.Array, ...] = ()
  if isinstance(held, Paged):
    per = sizes.keys // sizes.c
    held, page, j = held.pages_PCGK, (held.table_BN[jax.lax.div(j, per)],), jax.lax.rem(j, per)
  part = *page, pl.ds(j * sizes.c, sizes.c)
  there_C = None if sizes.keys % sizes.c == 0 else j * sizes.c + jnp.arange(sizes.c) < sizes.keys
  if not isinstance(held, Coded):
    return _read(sizes, held.at[part], there_C).astype(dtype), 1.0
  scale_ref = held.scale.at[part]
  scale_C = scale_ref[...] if there_C is None else plt.load(scale_ref, mask=there_C, other=0.0)
  return _read(sizes, held.codes.at[part], there_C).astype(dtype), scale_C[None]


def _read(sizes, ref, there_C):
  mask = None if sizes.width == sizes.size else jnp.arange(sizes.width)[None] < sizes.size
  if there_C is not None:
    mask = there_C[:, None] if mask is None else there_C[:, None] & mask
  return plt.load(ref) if mask is None else plt.load(ref, mask=mask, other=0)
