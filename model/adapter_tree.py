"""Trees of parameters with adapters in them: take the adapters out, or the base; put them over another; merge them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from model.decoder import Model
from model.errors import ConfigError
from model.linear import matrix
from model.lowrank import LowRank
from model.quantize import Quantized
from model.sharding import is_box, unbox


def _leaves(params: Any) -> list[Any]:
  return jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, LowRank))


def _mapped(change: Callable[[LowRank], Any], other: Callable[[Any], Any], params: Any) -> Any:
  return jax.tree.map(lambda w: change(w) if isinstance(w, LowRank) else other(w), params,
                      is_leaf=lambda x: isinstance(x, LowRank) or is_box(x))


def adapted(params: Any) -> bool:
  """Whether a tree has adapters."""
  return any(isinstance(w, LowRank) for w in _leaves(params))


def adapters(params: Any) -> Any:
  """The tree of the adapters' trainable arrays, None in place of all else."""
  return _mapped(lambda w: replace(w, base=None, squares=None), lambda _: None, params)


def bases(params: Any) -> Any:
  """The tree of all but the adapters' trainable arrays, None in place of those."""
  def base(w: LowRank) -> LowRank:
    nothing = {span.part: None for span in w.spans}
    return replace(w, a=None, b=nothing, magnitudes=None if w.magnitudes is None else nothing)

  return _mapped(base, lambda w: w, params)


def detach(params: Any) -> Any:
  """The model without its adapters, sharing its arrays: a reference model that costs no memory."""
  return _mapped(lambda w: w.base, lambda w: w, params)


def over(learned: Any, base: Any) -> Any:
  """The adapters in `learned` (as `adapters` gives them) over the plain tree `base`, so that several sets can share one base.

  Raises: ConfigError `edit.dora-base` for DoRA, whose adapters depend on the base that they were trained on.
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
  """The tree with random keys in each adapter that has dropout, one for each layer."""
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
