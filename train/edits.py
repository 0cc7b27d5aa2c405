"""An edited model in two trees, what learns and what is frozen, and a loss that sees them joined.

    edits -> split -> State.params: what learns, None elsewhere      frozen['base']: all else, None where something learns

So the optimizer's moments and a checkpoint hold adapters and nothing else, and the step need not know of it. Where only a
part of a leaf learns (new rows of a table, the upper of stacked layers), that part is in State.params, the rest in the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.tree_util import GetAttrKey, tree_map_with_path

from model.adapt import LoRA
from model.adapter_tree import adapted, adapters, keyed
from model.decoder import OWN, own
from model.edit import Edit
from model.errors import ConfigError
from model.freeze import Freezing, depth
from model.new_tokens import TABLES, newest
from model.quantize import Quantized
from model.sharding import is_box
from train.types import Batch, Frozen, Key, Loss, LossFn, Params


@struct.dataclass
class Below:
  """The frozen first entries of a parameter along `axis`; those that learn come after them."""

  value: Any
  axis: int = struct.field(pytree_node=False)


@dataclass(frozen=True)
class Cut:
  """A leaf learns from entry `at` on along `axis`: all of it at 0, nothing at None."""

  at: int | None
  axis: int = 0


def edited(edits: Sequence[Edit], params: Params, key: Key) -> Params:
  """The tree after all edits, in order, each with a key of its own."""
  for index, edit in enumerate(edits):
    params = edit(params, jax.random.fold_in(key, index))
  return params


def split(params: Params, edits: Sequence[Edit] = ()) -> tuple[Params, Frozen]:
  """The trainable and the frozen part of a tree that these edits were made to.

  With adapters, these learn, what edits added beside the model, and the rows of new tokens; without, all of it. What a
  `Freezing` edit freezes does not. To be called while tracing.
  Raises: ConfigError `edit.nothing-learns` where nothing is left, or for weights in few bits without adapters.
  """
  if not adapted(params) and not any(isinstance(each, Freezing | Quantized) for each in (*edits, *_leaves(params))):
    return params, {}
  cuts = _cuts(params, edits)
  learned, fixed = (jax.tree.map(take, cuts, params) for take in (_above, _below))
  if not jax.tree.leaves(learned):
    raise ConfigError('edit.nothing-learns', f'edits = {tuple(edits)}', 'all that the model has is frozen',
                      'freeze less, or add a head or adapters')
  return learned, {'base': fixed}


def _leaves(params: Params) -> list[Any]:
  return jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Quantized))


def _cuts(params: Params, edits: Sequence[Edit]) -> Any:
  """A Cut for each leaf, those of a matrix in few bits together."""
  beside = {name: part for name, part in params.items() if name not in OWN}
  learns = adapters(own(params)) | beside if adapted(params) else params
  freezes = [(edit, edits[place + 1:]) for place, edit in enumerate(edits) if isinstance(edit, Freezing)]
  layers, rows = depth(params.get('layers', {})), newest(edits)

  def cut(path: Any, mark: Any, leaf: Any) -> Cut:
    names = tuple(getattr(part, 'key', '') for part in path)
    table = names in TABLES
    if mark is None and not (rows and table):
      return Cut(None)
    axis, shape = TABLES.get(names, 0), _shape(leaf)
    at = shape[axis] - rows if mark is None else 0
    for edit, later in freezes:
      if _holds(path, names[0], later):
        held = edit.still(names[0], shape[0], layers)
        at = max(at, held if held < shape[0] else shape[axis] - table * newest(later))
    if isinstance(leaf, Quantized) and at < shape[axis]:
      raise ConfigError('edit.nothing-learns', 'edits have Quantize and no adapter', 'weights in few bits get no gradient',
                        'put LoRA after Quantize among the edits')
    return Cut(at if at < shape[axis] else None, axis)

  return tree_map_with_path(cut, learns, params, is_leaf=lambda x: x is None or is_box(x) or isinstance(x, Quantized))


def _shape(leaf: Any) -> tuple[int, ...]:
  return leaf.value.shape if is_box(leaf) else leaf.shape


def _holds(path: Any, part: str, later: Sequence[Edit]) -> bool:
  """Whether a freeze holds what lies there, given the edits that come after it."""
  adapter = any(isinstance(step, GetAttrKey) for step in path)
  return part in OWN and not (adapter and any(isinstance(edit, LoRA) for edit in later))


def _above(cut: Cut, leaf: Any) -> Any:
  """The part of a leaf that learns."""
  return leaf if cut.at == 0 else None if cut.at is None else _sliced(leaf, cut.at, None, cut.axis)


def _below(cut: Cut, leaf: Any) -> Any:
  """The part that does not."""
  return None if cut.at == 0 else leaf if cut.at is None else Below(_sliced(leaf, 0, cut.at, cut.axis), cut.axis)


def _sliced(leaf: Any, begin: int, end: int | None, axis: int) -> Any:
  if is_box(leaf):
    return leaf.replace(value=_sliced(leaf.value, begin, end, axis))
  return jax.lax.slice_in_dim(leaf, begin, end, axis=axis)


def join(params: Params, frozen: Frozen) -> Params:
  """The whole tree again, from the two parts that `split` gave."""
  if 'base' not in frozen:
    return params
  return jax.tree.map(_joined, params, frozen['base'], is_leaf=lambda x: x is None)


def _joined(learned: Any, fixed: Any) -> Any:
  if isinstance(fixed, Below):
    return jnp.concatenate([fixed.value, learned], fixed.axis)
  return fixed if learned is None else learned


def whole(loss_fn: LossFn) -> LossFn:
  """The loss as a function of the two parts; adapters with dropout are given the step's key."""

  def joined(params: Params, frozen: Frozen, batch: Batch, key: Key) -> Loss:
    return loss_fn(keyed(join(params, frozen), key), frozen, batch, key)

  return joined
