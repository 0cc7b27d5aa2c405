"""Low-rank adapters: a leaf that stands for a frozen matrix plus a trainable one of low rank (LoRA, Hu et al. 2021).

    y = x W + scale * drop(x) A B        A random, B = 0: before its first step an adapted model is its base
    y = g * (x W + scale * drop(x) A B)  DoRA: g = magnitude / length of each column of W + scale * A B (Liu et al. 2024)

W is an array or `Quantized` (QLoRA, Dettmers et al. 2023) and gets no gradient. A fused matrix is adapted by its parts, as
if q, k and v, gate and up were matrices of their own; as one, they would share an A and with it their rank.

A forward pass is a function of its parameters alone, so the random keys of dropout are put into the leaf (`keyed` in
model.adapter_tree, which has all that is done to whole trees): a tree without them drops nothing.

Letters: S dimensions before a matrix (layers, experts), I inputs, O outputs, P parts, r the rank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from model import sharding
from model.linear import Routed, Weight, by_expert, frozen, matrix, multiply, ready, routed

Target = Literal['q', 'k', 'v', 'qkv', 'out', 'gate', 'up', 'down', 'gate_up']


class Span(NamedTuple):
  """The outputs of one part: from `begin` to `end` along dimension `axis` of O."""

  part: str                           # a Target
  axis: int
  begin: int
  end: int


@struct.dataclass
class LowRank:
  """A frozen weight [*S, *I, *O] and what is added to it."""

  base: Weight                        # None where only what learns is kept
  a: Any                              # f32[*S, *I, P, r]
  b: Any                              # {part: f32[*S, r, *O of the part]}
  magnitudes: Any = None              # {part: f32[*S, *O of the part]} with DoRA
  squares: Any = None                 # alike: the squared lengths of the base's columns
  seeds: Any = None                   # u32[*S, ...]: key data, while there is dropout
  spans: tuple[Span, ...] = struct.field(pytree_node=False, default=())
  inputs: int = struct.field(pytree_node=False, default=1)
  scale: float = struct.field(pytree_node=False, default=1.0)
  dropout: float = struct.field(pytree_node=False, default=0.0)

  @property
  def shape(self) -> tuple[int, ...]:
    return self.base.shape

  @property
  def outputs(self) -> int:
    """How many dimensions O has."""
    return jnp.ndim(self.b[self.spans[0].part]) - (jnp.ndim(self.a) - 1 - self.inputs)


@multiply.register
def _(w: LowRank, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  y = frozen(w.base, x, inputs, dtype)
  low = multiply(w.a, dropped(w, x), inputs, dtype)
  parts = {span.part: multiply(w.b[span.part], low[..., i, :], 1, dtype) for i, span in enumerate(w.spans)}
  y = y + w.scale * laid(w, parts, y.shape[-w.outputs:], 0.0).astype(y.dtype)
  return y if w.magnitudes is None else y * laid(w, gains(w, crossed(w)), y.shape[-w.outputs:], 1.0).astype(y.dtype)


@routed.register
def _(w: LowRank, names: tuple[str | None, ...], dtype: str) -> Routed:
  """The product with the base plus that with A and B: no expert's adapted matrix is computed."""
  base, exact = (routed(w.base, names, each) for each in (dtype, 'float32'))
  own = replace(w, base=None)
  leaves, tree = jax.tree.flatten(own)
  [axes] = sharding.laid(w.shape[1:2], names[1])
  return Routed((*jax.lax.stop_gradient(base.arrays), *leaves), (*base.names, *_names(own, names)),
                partial(_by_expert, base.times, exact.times, tree, axes, dtype))


def _names(own: LowRank, names: tuple[str | None, ...]) -> list[tuple[str | None, ...]]:
  """The logical names of its arrays, where W has these."""
  def each(tree: Any, *lie: str | None) -> Any:
    return jax.tree.map(lambda _: lie, tree)

  named = LowRank(None, (*names[:2], None, None), each(own.b, None, None, *names[2:]), each(own.magnitudes, None, *names[2:]),
                  each(own.squares, None, *names[2:]), each(own.seeds, None))
  return jax.tree.leaves(named, is_leaf=lambda x: isinstance(x, tuple))


def _by_expert(base, exact, tree, axes, dtype: str, x_RI: jax.Array, sizes_E: jax.Array, *arrays: jax.Array) -> jax.Array:
  """f32[R, *O], by products with W in `dtype` (`base`) and in float32 (`exact`); `axes` cut I over devices, if any do."""
  below, w = arrays[:-tree.num_leaves], jax.tree.unflatten(tree, arrays[-tree.num_leaves:])
  y = base(x_RI, sizes_E, *below)
  outputs = y.shape[1:]
  low_RPr = by_expert(dtype, dropped(w, x_RI), sizes_E, w.a)
  parts = {span.part: by_expert(dtype, low_RPr[:, i], sizes_E, w.b[span.part]) for i, span in enumerate(w.spans)}
  y = y + w.scale * laid(w, parts, outputs, 0.0)
  if w.magnitudes is None:
    return y
  cross = _crossed_by_expert(w, outputs, lambda rows, sizes: exact(rows, sizes, *below))
  gain_EO = laid(w, gains(w, cross, lambda more: jax.lax.psum(more, axes) if axes else more), outputs, 1.0)
  return y * jnp.repeat(gain_EO, sizes_E, 0, total_repeat_length=len(y))


def _crossed_by_expert(w: LowRank, outputs: tuple[int, ...], times: Callable[..., jax.Array]) -> list[jax.Array]:
  """As `crossed`: the columns of A are rows that lie sorted by expert."""
  rows_EPrI = jax.lax.stop_gradient(jnp.moveaxis(w.a, 1, -1))
  experts, count, rank, inputs = rows_EPrI.shape
  y = times(rows_EPrI.reshape(-1, inputs), jnp.full(experts, count * rank, jnp.int32))
  y = y.reshape(experts, count, rank, *outputs)
  return [_of(span, y[:, i], len(outputs)).reshape(experts, rank, -1) for i, span in enumerate(w.spans)]


@matrix.register
def _(w: LowRank, dtype: Any) -> jax.Array:
  """The adapted matrix, worked out in float32."""
  base = jax.lax.stop_gradient(matrix(w.base, jnp.float32).astype(jnp.float32))
  outputs = base.shape[base.ndim - w.outputs:]
  parts = {span.part: _product(w, i).reshape(*base.shape[:base.ndim - w.outputs], *w.b[span.part].shape[-w.outputs:])
           for i, span in enumerate(w.spans)}
  y = base + w.scale * laid(w, parts, outputs, 0.0)
  if w.magnitudes is not None:
    gain = laid(w, gains(w, crossed(w)), outputs, 1.0)
    stacked = base.ndim - w.inputs - w.outputs
    y = y * gain.reshape(*gain.shape[:stacked], *(1,) * w.inputs, *outputs)
  return y.astype(dtype)


@ready.register
def _(w: LowRank, dtype: Any) -> LowRank:
  """The base ready; the adapters are small."""
  return replace(w, base=ready(w.base, dtype))


def laid(w: LowRank, parts: Mapping[str, jax.Array], outputs: tuple[int, ...], blank: float) -> jax.Array:
  """[..., *O] put together from its parts, `blank` where there is none."""
  axis = w.spans[0].axis - len(outputs)
  pieces, at = [], 0
  some = parts[w.spans[0].part]

  def empty(count: int) -> jax.Array:
    return jnp.full((*some.shape[:axis], count, *some.shape[some.ndim + axis + 1:]), blank, some.dtype)

  for span in w.spans:
    pieces += [empty(span.begin - at)] * (span.begin > at) + [parts[span.part]]
    at = span.end
  pieces += [empty(outputs[axis] - at)] * (outputs[axis] > at)
  return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, axis)


def dropped(w: LowRank, x: jax.Array) -> jax.Array:
  """x after dropout; x itself if the leaf holds no key.

  What is dropped depends on the key and on the index in x, however a mesh cuts x. Where positions are reordered over devices
  (kernels.zigzag), it is another draw than on one device.
  """
  if w.seeds is None:
    return x
  kept = jax.random.bernoulli(jax.random.wrap_key_data(w.seeds), 1 - w.dropout, x.shape)
  return jnp.where(kept, x / (1 - w.dropout), 0).astype(x.dtype)


def gains(w: LowRank, cross: Sequence[jax.Array], whole: Callable[[jax.Array], jax.Array] = lambda part: part
          ) -> dict[str, jax.Array]:
  """What DoRA multiplies each column by, f32[*S, *O of the part]; the length is a constant to the gradient (section 4.3).

  |W + s A B|^2 = |W|^2 + 2 s (A^T W) . B + s^2 (A^T A B) . B, column by column, without a second matrix; `cross` is A^T W of
  each part, and `whole` the sum over devices that have some of I each. |W|^2 is the number that the magnitude began as the
  root of, so that the gain of a new adapter is 1 exactly.
  """
  found = {}
  for i, span in enumerate(w.spans):
    a, b = _flat(w, i)
    own = ((a.mT @ a @ b) * b).sum(-2)
    more = 2 * w.scale * (cross[i] * b).sum(-2) + w.scale ** 2 * own
    norm = jax.lax.stop_gradient(length(w.squares[span.part] + whole(more).reshape(w.squares[span.part].shape)))
    # behind a barrier, or XLA multiplies by 1 / sqrt(square) instead, which is no longer 1 for equals
    found[span.part] = w.magnitudes[span.part] / jax.lax.optimization_barrier(norm)
  return found


def crossed(w: LowRank) -> list[jax.Array]:
  """A^T W of each part, f32[*S, r, O], by the matrix worked out."""
  base = matrix(w.base, jnp.float32).astype(jnp.float32)
  parts = [_of(span, base, w.outputs) for span in w.spans]
  flat = [_flat(w, i)[0] for i in range(len(parts))]
  return [a.mT @ part.reshape(*a.shape[:-1], -1) for a, part in zip(flat, parts)]


def _of(span: Span, x: jax.Array, outputs: int) -> jax.Array:
  """One part of [..., *O], or of the parts of O that this device has: no mesh cuts where several lie."""
  axis = x.ndim - outputs + span.axis
  return jax.lax.slice_in_dim(x, span.begin, min(span.end, x.shape[axis]), axis=axis)


def length(square: jax.Array) -> jax.Array:
  """The square root, bounded away from 0 so that DoRA's gain of a zero column is still 1."""
  return jnp.sqrt(jnp.maximum(square, 1e-24))


def _flat(w: LowRank, part: int) -> tuple[jax.Array, jax.Array]:
  """A f32[*S, I, r] and B f32[*S, r, O] of one part, as matrices."""
  a, b = w.a[..., part, :], w.b[w.spans[part].part]
  stacked = a.ndim - 1 - w.inputs
  return a.reshape(*a.shape[:stacked], -1, a.shape[-1]), b.reshape(*b.shape[:stacked + 1], -1)


def _product(w: LowRank, part: int) -> jax.Array:
  a, b = _flat(w, part)
  return a @ b
