"""Quantised weights (model.levels): a leaf that stands for a matrix, dequantised inside the forward pass.

A block is a stretch of inputs of one output, and a dimension of the stored array, which devices cut only between blocks.
Nothing here learns: gradients go to activations.

Letters: S dimensions before a matrix (layers, experts), I inputs in one dimension, O outputs, N blocks, C codes of a block.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from flax.linen import LogicallyPartitioned

from kernels.grouped import grouped_made
from kernels.lowbit import Choice, choose, describe, lowbit
from kernels.lowbit_grouped import lowbit_grouped
from model.edit import Edit
from model.errors import ConfigError
from model.levels import BLOCK, NF4, WHOLE, Doubled, Kind, double, in_blocks, level, nearest, pack, unpack
from model.linear import Place, Routed, Weight, edited, frozen, matrix, multiply, ready, routed, worked_out
from model.sharding import is_box, parts, unbox

Module = Literal['qkv', 'out', 'up', 'down']


@struct.dataclass
class Quantized:
  """Matrices [*S, *I, *O], quantised. `of` is the shape [*I, *O] of one, and its first `inputs` dimensions are I."""

  codes: Any                          # u8[*S, N, C / 2, *O], two a byte, the first in its high half; int8: i8[*S, 1, I, *O]
  scales: Any                         # f32[*S, N, *O], or Doubled
  kind: Kind = struct.field(pytree_node=False)
  of: tuple[int, ...] = struct.field(pytree_node=False)
  inputs: int = struct.field(pytree_node=False)

  @property
  def stacked(self) -> int:
    """How many dimensions S has."""
    return jnp.ndim(unbox(self.codes)) - 2 - (len(self.of) - self.inputs)

  @property
  def shape(self) -> tuple[int, ...]:
    return unbox(self.codes).shape[:self.stacked] + self.of

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def bits(self) -> float:
    """Bits a weight, of all that is stored."""
    return 8 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self)) / self.size


def quantize(w: jax.Array, kind: Kind, inputs: int, stacked: int = 0) -> Quantized:
  """The matrices [*S, *I, *O], quantised: each number becomes the nearest level, given the scale as it is stored."""
  shape = w.shape[stacked:]
  w = in_blocks(w.astype(jnp.float32), kind, inputs, stacked)
  scales: Any = jnp.max(jnp.abs(w), stacked + 1)
  if kind == 'nf4':
    scales = double(scales, stacked)
  scale = jnp.expand_dims(scales.value if isinstance(scales, Doubled) else scales, stacked + 1)
  codes = nearest(jnp.where(scale > 0, w / jnp.where(scale > 0, scale, 1.0), 0.0), kind)
  return Quantized(codes if kind == 'int8' else pack(codes, stacked + 1), scales, kind, shape, inputs)


def dequantize(w: Quantized, dtype: Any = jnp.float32) -> jax.Array:
  """The matrices [*S, *I, *O] again, computed in float32."""
  stacked = w.stacked
  values = level(w.codes, 'int8') if w.kind == 'int8' else level(unpack(w.codes, stacked + 1), w.kind)
  scales = w.scales.value if isinstance(w.scales, Doubled) else w.scales
  y = (values * jnp.expand_dims(scales, stacked + 1)).astype(dtype)
  y = y.reshape(*y.shape[:stacked], -1, *y.shape[stacked + 2:])
  return jax.lax.slice_in_dim(y, 0, math.prod(w.of[:w.inputs]), axis=stacked).reshape(w.shape)


@multiply.register
def _(w: Quantized, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  return frozen(w, x, inputs, dtype)


@frozen.register
def _(w: Quantized, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  """By a kernel on the codes where there is one (`multiplier` says), else by the dequantised matrix."""
  leading = x.shape[:x.ndim - inputs]
  if multiplier(w, math.prod(leading), dtype).name == 'dequantised':
    return worked_out(w, x, inputs, dtype)
  return lowbit(x.reshape(*leading, -1), w.codes, *_steps(w), dtype=dtype).astype(x.dtype)


def _steps(w: Quantized) -> tuple[jax.Array, tuple[float, ...] | None]:
  """What the kernels multiply numbers by, f32[*S, N, *O], and the numbers of the codes where those are not whole."""
  scales = w.scales.value if isinstance(w.scales, Doubled) else w.scales
  return scales / WHOLE[w.kind], NF4 if w.kind == 'nf4' else None


def multiplier(w: Quantized, rows: int, dtype: str) -> Choice:
  """Which kernel multiplies `rows` rows by such a matrix, and why a faster one does not; `str` of it is for people."""
  return choose(describe(rows, w.codes, dtype))


@routed.register
def _(w: Quantized, names: tuple[str | None, ...], dtype: str) -> Routed:
  """By a kernel on the codes, or one dequantised matrix at a time; all of them only where the mesh would cut a block."""
  _, first, *after = names
  count = parts(first, w.of[0]) if first else 1
  if w.kind != 'int8' and (w.of[0] % BLOCK or w.of[0] // BLOCK % count) and count > 1:
    return routed(matrix(w, dtype), names, dtype)
  scales = w.scales.value if isinstance(w.scales, Doubled) else w.scales
  inside = _inside(w.kind, first)
  return Routed((w.codes, scales), ((None, *inside, *after), (None, inside[0], *after)), partial(_by_expert, w.kind, dtype))


def _by_expert(kind: Kind, dtype: str, x_RI: jax.Array, sizes_E: jax.Array, codes: jax.Array, scales: jax.Array) -> jax.Array:
  """f32[R, *O] of the experts' matrices, or of the parts of them that this device has."""
  w = Quantized(codes, scales, kind, (x_RI.shape[1], *codes.shape[3:]), 1)
  one = jax.ShapeDtypeStruct(codes.shape[1:], codes.dtype)
  if choose(describe(len(x_RI), one, dtype, groups=len(codes))).name == 'grouped':
    return lowbit_grouped(x_RI, sizes_E, codes, *_steps(w), dtype=dtype)
  y_RF = grouped_made(x_RI, w, lambda w: dequantize(w, dtype).reshape(w.of[0], -1), sizes_E, dtype)
  return y_RF.reshape(len(x_RI), *w.of[1:])


matrix.register(Quantized, dequantize)


@ready.register
def _(w: Quantized, dtype: Any) -> Quantized:
  """As it is: whoever quantises weights has no room for them dequantised."""
  return w


@dataclass(frozen=True)
class Quantize(Edit):
  """Quantises the named matrices of the blocks. Embedding, head, router and norms stay as they are."""

  kind: Kind = 'nf4'
  targets: tuple[Module, ...] = ('qkv', 'out', 'up', 'down')

  def __call__(self, params: Any, key: jax.Array) -> Any:
    """Plain or boxed. Raises: ConfigError `edit.not-an-array` where a matrix is quantised or adapted already."""
    return edited(params, lambda place, w: self._made(place, w) if place.module in self.targets else w)

  def _made(self, place: Place, w: Weight) -> Weight:
    if is_box(w):
      return _boxed(quantize(w.value, self.kind, place.inputs, place.stacked), w.names)
    if not isinstance(w, jax.Array):
      raise ConfigError('edit.not-an-array', f'Quantize({self.kind!r}): {place.module} is {type(w).__name__}',
                        'numbers are rounded once, before adapters are laid over them', 'put Quantize first among the edits')
    return quantize(w, self.kind, place.inputs, place.stacked)


def _boxed(w: Quantized, names: tuple[str | None, ...]) -> Quantized:
  """With logical names: the dimension of blocks (of inputs, if one block has all) is cut as the first input dimension was."""
  before, first, after = names[:w.stacked], names[w.stacked], names[w.stacked + w.inputs:]
  inside = _inside(w.kind, first)
  blocks = (*before, inside[0], *after)

  def box(value: jax.Array, *names: str | None) -> LogicallyPartitioned:
    return LogicallyPartitioned(value, names)

  scales = w.scales
  if isinstance(scales, Doubled):
    scales = Doubled(box(scales.codes, *blocks), box(scales.steps, *before, None), box(scales.mean, *before))
  else:
    scales = box(scales, *blocks)
  return replace(w, codes=box(w.codes, *before, *inside, *after), scales=scales)


def _inside(kind: Kind, first: str | None) -> tuple[str | None, str | None]:
  """The logical names of N and C, where the first dimension of I has that one."""
  return (None, first) if kind == 'int8' else (first, None)
