"""Runs over an edited model: which of its leaves learn, which lie beside the state, and a loss that sees them together.

    edits -> split -> State.params: what learns, None elsewhere      frozen['base']: all else, None where something learns

So an optimizer's moments and a checkpoint hold adapters and nothing else, and the step knows nothing of it.
"""

from collections.abc import Sequence

import jax

from model.decoder import OWN, own
from model.edit import Edit
from model.errors import ConfigError
from model.lowrank import adapted, adapters, bases, keyed
from model.quantize import Quantized
from model.sharding import is_box
from train.types import Batch, Frozen, Key, Loss, LossFn, Params


def edited(edits: Sequence[Edit], params: Params, key: Key) -> Params:
  """The tree after all edits, in order, each with a key of its own."""
  for index, edit in enumerate(edits):
    params = edit(params, jax.random.fold_in(key, index))
  return params


def split(params: Params) -> tuple[Params, Frozen]:
  """What learns and what does not: of a model with adapters those and what edits added beside it, of any other all of it.

  Raises: ConfigError `edit.nothing-learns` for weights in few bits without adapters.
  """
  if adapted(params):
    model, added = own(params), {name: part for name, part in params.items() if name not in OWN}
    return adapters(model) | added, {'base': bases(model) | jax.tree.map(lambda _: None, added, is_leaf=is_box)}
  if any(isinstance(w, Quantized) for w in jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Quantized))):
    raise ConfigError('edit.nothing-learns', 'edits have Quantize and no adapter', 'weights in few bits get no gradient',
                      'put LoRA after Quantize among the edits')
  return params, {}


def join(params: Params, frozen: Frozen) -> Params:
  """The whole tree of what `split` took apart."""
  if 'base' not in frozen:
    return params
  return jax.tree.map(lambda learned, fixed: fixed if learned is None else learned, params, frozen['base'],
                      is_leaf=lambda x: x is None)


def whole(loss_fn: LossFn) -> LossFn:
  """The loss of the joined tree, with the step's key in adapters that drop some of their input."""

  def joined(params: Params, frozen: Frozen, batch: Batch, key: Key) -> Loss:
    return loss_fn(keyed(join(params, frozen), key), frozen, batch, key)

  return joined
