"""From published tensors to our parameters and back, one parameter after another.

Each device's shard is made from the parts of the file that it needs, straight where it will lie.
"""

import math
import re
from collections.abc import Callable, Iterator, Set
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr

from model.config import Decoder
from model.decoder import Params, shapes
from model.errors import DataError
from model.sharding import unbox
from model.weights.encoders import UNUSED, aliases
from model.weights.modernbert import HEAD
from model.weights.names import Rule, Rules
from model.weights.tensor import Slices, Tensor, Tensors

ALIGNED = 64                                          # bytes
HEADS = ('lm_head.weight', 'embed_out.weight', 'decoder.weight')     # written a second time by some where it is the embedding
DERIVED = re.compile(r'(.*\.)?(rotary_emb\.inv_freq|(attn|attention)\.(masked_)?bias)')     # buffers in older files


def load(config: Decoder, rules: Rules, tensors: Tensors, places: Params) -> Params:
  """The parameters, with the shardings in `places`, in the model's `param_dtype`.

  Raises: DataError that names tensors that are missing, too many or of another shape, and parameters with numbers that
  are not finite.
  """
  tensors = check(config, rules, tensors)
  by_path = {rule.ours: rule for rule in rules}
  kind = np.dtype(config.param_dtype)

  def made(path: Any, like: jax.ShapeDtypeStruct, place: Any) -> jax.Array:
    def part(index: Any) -> np.ndarray:
      return _part(config, by_path[keystr(path, simple=True, separator='/')], tensors, like.shape, index, kind)

    return jax.make_array_from_callback(like.shape, place, part)

  return jax.tree_util.tree_map_with_path(made, abstract(config), places)


def abstract(config: Decoder) -> Params:
  """The shapes of the parameters."""
  return unbox(jax.eval_shape(lambda: shapes(config)))


def _layers(config: Decoder, count: int) -> range:
  """The layers of a parameter that is stacked for `count` of them: the first layer may lack it."""
  return range(config.layers - count, config.layers)


def _part(config: Decoder, rule: Rule, tensors: Tensors, shape: tuple[int, ...], index: tuple[slice, ...],
          kind: np.dtype) -> np.ndarray:
  """The part of a parameter at an index."""
  found = room(tuple(len(range(*part.indices(size))) for part, size in zip(index, shape)), kind)
  if not rule.layered:
    found[...] = _whole(rule, tensors, 0)[index]
    return found
  for place, layer in enumerate(_layers(config, shape[0])[index[0]]):
    found[place] = _whole(rule, tensors, layer)[index[1:]]
  return found


def room(shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
  """An array not yet written, which begins where XLA's do: on a CPU it is then used as it lies, and not copied."""
  size = math.prod(shape) * kind.itemsize
  memory = np.empty(size + ALIGNED, np.uint8)
  begin = -memory.ctypes.data % ALIGNED
  return memory[begin:begin + size].view(kind).reshape(shape)


def _whole(rule: Rule, tensors: Tensors, layer: int) -> np.ndarray:
  parts = [tensors[name.format(layer)].whole() for name in rule.theirs]
  for name, part in zip(rule.theirs, parts):
    if not np.isfinite(part.astype(np.float32, copy=False)).all():
      raise DataError('weights.not-finite', f'tensor {name.format(layer)}', 'it holds numbers that are not finite',
                      'fetch the file again; if it is so at its source, do not use it')
  return rule.layout.ours(parts)


def wanted(config: Decoder, rules: Rules) -> dict[str, tuple[int, ...]]:
  """The published tensors that a model is made of, and their shapes."""
  found: dict[str, tuple[int, ...]] = {}
  for path, like in jax.tree_util.tree_leaves_with_path(abstract(config)):
    rule = next(rule for rule in rules if rule.ours == keystr(path, simple=True, separator='/'))
    shape = like.shape[1:] if rule.layered else like.shape
    parts = rule.layout.theirs(np.broadcast_to(np.int8(0), shape))
    for layer in _layers(config, like.shape[0]) if rule.layered else range(1):
      found |= {name.format(layer): part.shape for name, part in zip(rule.theirs, parts)}
  return found


def renamed(tensors: Tensors, missing: Set[str]) -> Tensors:
  """The tensors, those under the missing names that files have under others."""
  return {next((alias for alias in aliases(name) if alias in missing), name): tensor for name, tensor in tensors.items()}


def check(config: Decoder, rules: Rules, tensors: Tensors) -> Tensors:
  """The tensors under the names of the rules, if there are exactly those with the right shapes. Raises: DataError."""
  expected, bare = wanted(config, rules), not config.causal and config.head is None
  tensors = renamed(tensors, expected.keys() - tensors.keys())
  extra = [name for name in tensors if name not in expected and not DERIVED.fullmatch(name) and not UNUSED.fullmatch(name)
           and not (config.tied and name in HEADS) and not (bare and HEAD.fullmatch(name))]
  missing = expected.keys() - tensors.keys()
  if missing or extra:
    raise DataError('weights.names', f'missing {_few(missing)}; unknown {_few(extra)}', 'the tensors are not those of such a '
                    'model', 'compare the model in the experiment with config.json')
  for name, shape in expected.items():
    if tensors[name].shape != shape:
      raise DataError('weights.shape', f'tensor {name}: {list(tensors[name].shape)}', f'the model has {list(shape)}',
                      'compare the model in the experiment with config.json')
    if tensors[name].dtype.kind not in 'fV' and tensors[name].dtype.name != 'bfloat16':
      raise DataError('weights.type', f'tensor {name} of {tensors[name].dtype}', 'parameters are floating-point numbers',
                      'convert it')
  return tensors


def _few(names: Any) -> str:
  first = sorted(names)[:3]
  return (', '.join(first) + (f' and {len(names) - 3} more' if len(names) > 3 else '')) or 'none'


def published(config: Decoder, rules: Rules, params: Params, kind: np.dtype) -> list[Tensor]:
  """The parameters as tensors in `kind` under their published names, each made when it is read."""
  leaves = {keystr(path, simple=True, separator='/'): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
  return [tensor for rule in rules for tensor in _tensors(config, rule, leaves[rule.ours], kind)]


def _tensors(config: Decoder, rule: Rule, leaf: jax.Array, kind: np.dtype) -> Iterator[Tensor]:
  fetched = lru_cache(maxsize=1)(lambda: np.asarray(jax.device_get(leaf)))

  def parts(number: int) -> list[np.ndarray]:
    return rule.layout.theirs(fetched()[number] if rule.layered else fetched())

  shape = leaf.shape[1:] if rule.layered else leaf.shape
  sizes = [part.shape for part in rule.layout.theirs(np.broadcast_to(np.int8(0), shape))]

  def reader(number: int, place: int) -> Callable[[Slices], np.ndarray]:
    return lambda slices: parts(number)[place][slices].astype(kind)

  for number, layer in enumerate(_layers(config, leaf.shape[0]) if rule.layered else range(1)):
    for place, (name, size) in enumerate(zip(rule.theirs, sizes)):
      yield Tensor(name.format(layer), size, kind, reader(number, place))
