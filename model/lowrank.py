"""Low-rank adapters: a leaf that adds to a frozen matrix what a small one says (LoRA, Hu et al. 2021).

    y = x W + scale * drop(x) A B        A random, B = 0: before its first step an adapted model is its base
    y = g * (x W + scale * drop(x) A B)  DoRA: g = magnitude / length of each column of W + scale * A B (Liu et al. 2024)

W is an array or `Quantized` (QLoRA, Dettmers et al. 2023) and gets no gradient. A fused matrix is adapted by its parts, as
if q, k and v, gate and up were matrices of their own; as one, they would share an A and with it their rank.

A forward pass is a function of its parameters alone, so the chance of dropout is handed over inside the leaf: `keyed`
gives a tree whose adapters drop, and a tree as it is stored drops nothing and costs nothing.

Letters: S dimensions before a matrix (layers, experts), I inputs, O outputs, P parts, r the rank.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from model.decoder import Model
from model.errors import ConfigError
from model.linear import Weight, frozen, matrix, multiply, ready
from model.quantize import Quantized
from model.sharding import is_box, unbox

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

  base: Weight                        # None where only what learns is kept (`adapters`)
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
  return y if w.magnitudes is None else y * laid(w, gains(w), y.shape[-w.outputs:], 1.0).astype(y.dtype)


@matrix.register
def _(w: LowRank, dtype: Any) -> jax.Array:
  """The adapted matrix, worked out in float32."""
  base = jax.lax.stop_gradient(matrix(w.base, jnp.float32).astype(jnp.float32))
  outputs = base.shape[base.ndim - w.outputs:]
  parts = {span.part: _product(w, i).reshape(*base.shape[:base.ndim - w.outputs], *w.b[span.part].shape[-w.outputs:])
           for i, span in enumerate(w.spans)}
  y = base + w.scale * laid(w, parts, outputs, 0.0)
  if w.magnitudes is not None:
    gain = laid(w, gains(w), outputs, 1.0)
    stacked = base.ndim - w.inputs - w.outputs
    y = y * gain.reshape(*gain.shape[:stacked], *(1,) * w.inputs, *outputs)
  return y.astype(dtype)


@ready.register
def _(w: LowRank, dtype: Any) -> LowRank:
  """The base ready; the adapters are small."""
  return replace(w, base=ready(w.base, dtype))


def laid(w: LowRank, parts: Mapping[str, jax.Array], outputs: tuple[int, ...], blank: float) -> jax.Array:
  """[..., *O] from its parts, `blank` where none lies."""
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
  """x with a share of its numbers zero and the others larger by as much; x itself where the leaf holds no key."""
  if w.seeds is None:
    return x
  kept = jax.random.bernoulli(jax.random.wrap_key_data(w.seeds), 1 - w.dropout, x.shape)
  return jnp.where(kept, x / (1 - w.dropout), 0).astype(x.dtype)


def gains(w: LowRank) -> dict[str, jax.Array]:
  """What DoRA multiplies each column by, f32[*S, *O of the part]; the length is a constant to the gradient (section 4.3).

  |W + s A B|^2 = |W|^2 + 2 s (A^T W) . B + s^2 (A^T A B) . B, column by column, without a second matrix. |W|^2 is the
  number that the magnitude began as the root of, so that the gain of a new adapter is 1 exactly.
  """
  base = matrix(w.base, jnp.float32).astype(jnp.float32)
  found = {}
  for i, span in enumerate(w.spans):
    a, b = _flat(w, i)
    part = jax.lax.slice_in_dim(base, span.begin, span.end, axis=base.ndim - w.outputs + span.axis)
    part = part.reshape(*a.shape[:-1], -1)
    cross = ((a.mT @ part) * b).sum(-2)
    own = ((a.mT @ a @ b) * b).sum(-2)
    more = (2 * w.scale * cross + w.scale ** 2 * own).reshape(w.squares[span.part].shape)
    norm = jax.lax.stop_gradient(length(w.squares[span.part] + more))
    # behind a barrier, or XLA multiplies by 1 / sqrt(square) instead, which is no longer 1 for equals
    found[span.part] = w.magnitudes[span.part] / jax.lax.optimization_barrier(norm)
  return found


def length(square: jax.Array) -> jax.Array:
  """The root, of no less than a number at which DoRA's gain is still one."""
  return jnp.sqrt(jnp.maximum(square, 1e-24))


def _flat(w: LowRank, part: int) -> tuple[jax.Array, jax.Array]:
  """A f32[*S, I, r] and B f32[*S, r, O] of one part, as matrices."""
  a, b = w.a[..., part, :], w.b[w.spans[part].part]
  stacked = a.ndim - 1 - w.inputs
  return a.reshape(*a.shape[:stacked], -1, a.shape[-1]), b.reshape(*b.shape[:stacked + 1], -1)


def _product(w: LowRank, part: int) -> jax.Array:
  a, b = _flat(w, part)
  return a @ b


def _leaves(params: Any) -> list[Any]:
  return jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, LowRank))


def _mapped(change: Callable[[LowRank], Any], other: Callable[[Any], Any], params: Any) -> Any:
  return jax.tree.map(lambda w: change(w) if isinstance(w, LowRank) else other(w), params,
                      is_leaf=lambda x: isinstance(x, LowRank) or is_box(x))


def adapted(params: Any) -> bool:
  """Whether a tree has adapters."""
  return any(isinstance(w, LowRank) for w in _leaves(params))


def adapters(params: Any) -> Any:
  """The tree with what adapters learn, and None in place of all else."""
  return _mapped(lambda w: replace(w, base=None, squares=None), lambda _: None, params)


def bases(params: Any) -> Any:
  """The tree with all that adapters do not learn, and None in place of what they do."""
  def base(w: LowRank) -> LowRank:
    nothing = {span.part: None for span in w.spans}
    return replace(w, a=None, b=nothing, magnitudes=None if w.magnitudes is None else nothing)

  return _mapped(base, lambda w: w, params)


def detach(params: Any) -> Any:
  """The model below the adapters, of the same arrays: a reference that costs no memory."""
  return _mapped(lambda w: w.base, lambda w: w, params)


def over(learned: Any, base: Any) -> Any:
  """What adapters learned (`adapters`) laid over the plain tree of a model: a second set of them over one base.

  Raises: ConfigError `edit.dora-base` where they need to know the lengths of their base's columns.
  """
  def lay(w: Any, below: Any) -> Any:
    if not isinstance(w, LowRank):
      return below if w is None else w
    if w.magnitudes is not None:
      raise ConfigError('edit.dora-base', 'DoRA among the edits', 'its adapters know the base that they began on, and no other',
                        'use LoRA where several models share a base')
    return replace(w, base=below)

  return jax.tree.map(lay, learned, base, is_leaf=lambda x: x is None or isinstance(x, LowRank))


def keyed(params: Any, key: jax.Array) -> Any:
  """The tree with a key in each adapter that has dropout, one for each of its layers."""
  count = 0

  def seed(w: LowRank) -> LowRank:
    nonlocal count
    count += 1
    if not w.dropout:
      return w
    keys = jax.random.split(jax.random.fold_in(key, count), w.a.shape[0])
    return replace(w, seeds=jax.random.key_data(keys))

  return _mapped(seed, lambda w: w, params)


def merge(params: Any, dequantise: bool = False) -> Any:
  """The tree without adapters: W + scale * A B worked out in float32, in the dtype of W. Nothing else changes.

  Raises: ConfigError `edit.merge-quantised` for a base in few bits, unless `dequantise` asks for a float32 matrix in its
  place: rounded again, the model would not be the one whose adapters were judged.
  """
  def whole(w: LowRank) -> Any:
    if isinstance(w.base, Quantized) and not dequantise:
      raise ConfigError('edit.merge-quantised', f'an adapter over a matrix in {w.base.kind}', 'merged and rounded again it '
                        'would be another model than the one that was trained', 'ask for a dequantised copy: '
                        'merge(params, dequantise=True), or keep the adapters apart')
    made = matrix(unbox(w), jnp.float32)
    if is_box(w.base):
      return w.base.replace(value=made.astype(w.base.value.dtype))
    return made if isinstance(w.base, Quantized) else made.astype(w.base.dtype)

  return _mapped(whole, lambda w: w, params)


def largest_change(model: Model, before: Any, after: Any, tokens_BL: jax.Array) -> jax.Array:
  """The largest difference that two trees make to a logit on these rows, f32[]: what a merge costs."""
  first, second = (model.logits(params, model.hidden(params, tokens_BL).x_BLD) for params in (before, after))
  return jnp.max(jnp.abs(first - second))
