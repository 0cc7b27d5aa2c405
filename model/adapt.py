"""LoRA and DoRA: edits that add adapters to the matrices of a model, and one that merges them."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax.linen import LogicallyPartitioned

from model.adapter_tree import adapted, merge
from model.edit import Edit
from model.errors import ConfigError
from model.linear import Place, Weight, edited, matrix
from model.lowrank import LowRank, Span, Target, length
from model.quantize import Quantized
from model.sharding import is_box, unbox

Names = tuple[str | None, ...] | None


@dataclass(frozen=True)
class LoRA(Edit):
  """LoRA adapters of this rank for the named matrices of the blocks; names that the model lacks are ignored.

  'qkv' and 'gate_up' adapt the fused matrix as one. The scale is alpha / rank, or alpha / sqrt(rank), under which a
  larger rank does not learn more slowly (Kalajdzievski 2023). A begins uniform within 1 / sqrt(inputs), as in the paper's
  code. `dropout` is of the adapters' input, in training alone; parts of one matrix see the same input, dropped alike.
  """

  rank: int = 8
  alpha: float = 16.0
  targets: tuple[Target, ...] = ('q', 'k', 'v', 'out', 'gate', 'up', 'down')
  scaling: Literal['rank', 'sqrt'] = 'rank'
  dropout: float = 0.0

  def __post_init__(self):
    if self.rank < 1 or not 0 <= self.dropout < 1:
      raise ConfigError('config.out-of-range', f'rank = {self.rank}, dropout = {self.dropout}',
                        'a rank is at least 1, and dropout is a share below 1', 'for example LoRA(rank=8, dropout=0.05)')
    for whole, parts in {'qkv': 'q k v', 'gate_up': 'gate up'}.items():
      if whole in self.targets and set(parts.split()) & set(self.targets):
        raise ConfigError('edit.twice', f'targets = {self.targets}', f'{whole} has {parts} in it',
                          'name the whole or its parts')

  def __call__(self, params: Any, key: jax.Array) -> Any:
    """Plain or boxed. Raises: ConfigError `edit.nothing` where no target is in the model, `edit.twice` over adapters."""
    found: list[Place] = []

    def change(place: Place, w: Weight) -> Weight:
      spans = self._spans(place, w.value.shape if is_box(w) else w.shape)
      if not spans:
        return w
      found.append(place)
      return self._made(place, w, spans, jax.random.fold_in(key, place.number))

    params = edited(params, change)
    if not found:
      raise ConfigError('edit.nothing', f'LoRA targets = {self.targets}', 'the model has no such matrix',
                        f'name some of {", ".join(get_args(Target))}')
    return params

  def _spans(self, place: Place, shape: tuple[int, ...]) -> tuple[Span, ...]:
    """The parts of this matrix that are targets, in the order in which they lie."""
    outputs = shape[place.stacked + place.inputs:]
    last = len(outputs) - 1
    parts: tuple[Span, ...] = (Span(place.module, last, 0, outputs[last]),)
    if place.module == 'qkv':
      served = outputs[1] - 2
      parts = (Span('qkv', 1, 0, outputs[1]), Span('q', 1, 0, served), Span('k', 1, served, served + 1),
               Span('v', 1, served + 1, served + 2))
    elif place.module == 'up' and len(outputs) == 2:
      parts = (Span('gate_up', 0, 0, 2), Span('gate', 0, 0, 1), Span('up', 0, 1, 2))
    return tuple(span for span in parts if span.part in self.targets)

  def _made(self, place: Place, w: Weight, spans: tuple[Span, ...], key: jax.Array) -> LowRank:
    if isinstance(w, LowRank):
      raise ConfigError('edit.twice', f'LoRA: {place.module} is adapted already', 'an adapter lies over a plain or a '
                        'quantised matrix', 'put Merge before LoRA among the edits, or go on with the adapters that are there')
    if self.dropout and place.stacked > 1:
      raise ConfigError('edit.dropout-of-experts', f'dropout = {self.dropout} of {place.module}', 'the rows of experts lie '
                        'sorted, on each mesh otherwise, and would be dropped otherwise',
                        "set dropout to 0, or targets to ('q', 'k', 'v', 'out')")
    shape = w.value.shape if is_box(w) else w.shape
    cut = place.stacked + place.inputs
    bound = math.prod(shape[place.stacked:cut]) ** -0.5
    a: Any = jax.random.uniform(key, (*shape[:cut], len(spans), self.rank), jnp.float32, -bound, bound)
    b: Any = {span.part: jnp.zeros((*shape[:place.stacked], self.rank, *_part(shape[cut:], span))) for span in spans}
    names = logical(w, place)
    if names is not None:
      a = LogicallyPartitioned(a, (*names[:cut], None, 'rank'))
      b = {part: LogicallyPartitioned(x, (*names[:place.stacked], 'rank', *names[cut:])) for part, x in b.items()}
    scale = self.alpha / (self.rank if self.scaling == 'rank' else math.sqrt(self.rank))
    return LowRank(w, a, b, spans=spans, inputs=place.inputs, scale=scale, dropout=self.dropout)


def _part(outputs: tuple[int, ...], span: Span) -> tuple[int, ...]:
  return (*outputs[:span.axis], span.end - span.begin, *outputs[span.axis + 1:])


def logical(w: Weight, place: Place) -> Names:
  """The logical names of a boxed weight [*S, *I, *O]; None for a plain one."""
  if is_box(w):
    return w.names
  if isinstance(w, Quantized) and is_box(w.codes):
    names = w.codes.names
    cut = next((name for name in names[w.stacked:w.stacked + 2] if name), None)
    return (*names[:w.stacked], cut, *(None,) * (place.inputs - 1), *names[w.stacked + 2:])
  return None


@dataclass(frozen=True)
class DoRA(Edit):
  """To come after `LoRA`: each adapter also learns the lengths of the columns that it adapts (Liu et al. 2024)."""

  def __call__(self, params: Any, key: jax.Array) -> Any:
    """Plain or boxed. Raises: ConfigError `edit.nothing` where nothing is adapted."""
    if not adapted(params):
      raise ConfigError('edit.nothing', 'DoRA', 'no matrix is adapted', 'put LoRA before it among the edits')

    def change(place: Place, w: Weight) -> Weight:
      if not isinstance(w, LowRank) or w.magnitudes is not None:
        return w
      base = matrix(unbox(w.base), jnp.float32).astype(jnp.float32)
      lengths = jnp.square(base).sum(tuple(range(place.stacked, place.stacked + place.inputs)))
      squares: dict[str, Any] = {span.part: jax.lax.slice_in_dim(lengths, span.begin, span.end, axis=place.stacked + span.axis)
                                 for span in w.spans}
      magnitudes = {part: length(square) for part, square in squares.items()}
      names = logical(w.base, place)
      if names is not None:
        after = tuple('width' if name == 'embed' else name for name in names[place.stacked + place.inputs:])
        squares, magnitudes = (jax.tree.map(lambda x: LogicallyPartitioned(x, names[:place.stacked] + after), tree)
                               for tree in (squares, magnitudes))
      return replace(w, squares=squares, magnitudes=magnitudes)

    return edited(params, change)


@dataclass(frozen=True)
class Merge(Edit):
  """Merges the adapters that a parent learned into their matrices."""

  def __call__(self, params: Any, key: jax.Array) -> Any:
    return merge(params)
