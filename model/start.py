"""The initialisation of all parameters: modules say only the shapes and logical names of their weights.

    matrix             normal of deviation 1 / sqrt(inputs); smaller by sqrt(2N) if it writes into the residual stream,
                       so that the sum of 2N of them is as large as one
    embedding, head    normal of deviation 0.02, or 1 / sqrt(width) where that is less; under muP that of the base width
    scale, bias        so that norms multiply by 1 and add 0

Normal numbers are cut off at 2.3 deviations. The loss of a new model is within 2% of that of a uniform guess.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import LogicallyPartitioned

from model.config import Decoder, RMSNorm
from model.kinds import kind, sides
from model.sharding import is_box


def start(config: Decoder, abstract: Any, key: jax.Array) -> Any:
  """The tree of boxed parameters, given their boxed shapes. Those under 'layers' have a leading dimension of N."""
  leaves, tree = jax.tree_util.tree_flatten_with_path(abstract, is_leaf=is_box)
  paths, boxes = [[part.key for part in path] for path, _ in leaves], [box for _, box in leaves]
  matrices = [i for i, box in enumerate(boxes) if kind(box.names) == 'matrix']
  drawn = dict(zip(matrices, _layers(config, [boxes[i] for i in matrices], jax.random.fold_in(key, 0))))
  for i, (path, box) in enumerate(zip(paths, boxes)):
    if i not in drawn:
      drawn[i] = _single(config, path, box, jax.random.fold_in(key, i + 1))
  boxes = [box.replace(value=drawn[i].astype(config.param_dtype)) for i, box in enumerate(boxes)]
  return jax.tree.unflatten(tree, boxes)


def _single(config: Decoder, path: list[str], box: LogicallyPartitioned, key: jax.Array) -> jax.Array:
  if path[-1] == 'bias':
    return jnp.zeros(box.value.shape)
  if path[-1] == 'scale':
    norm = config.attention.qk_norm if path[-2] in ('q_norm', 'k_norm') else config.norm
    return jnp.full(box.value.shape, 1.0 - norm.offset if isinstance(norm, RMSNorm) else 1.0)
  base = config.mup.base_width if config.mup else config.width
  return normal(key, box.value.shape) * min(0.02, base ** -0.5)


def _layers(config: Decoder, boxes: list[LogicallyPartitioned], key: jax.Array) -> list[jax.Array]:
  """The stacked matrices. Those of a layer are cut from one draw: each draw takes XLA's compiler 0.4 s on a CPU."""
  sizes = [math.prod(box.value.shape[1:]) // config.width for box in boxes]

  def layer(key: jax.Array) -> list[jax.Array]:
    columns = jax.lax.split(normal(key, (config.width, sum(sizes))), sizes, axis=1)
    return [_shaped(config, box, numbers) for box, numbers in zip(boxes, columns)]

  return jax.lax.map(layer, jax.random.split(key, config.layers))


def _shaped(config: Decoder, box: LogicallyPartitioned, numbers: jax.Array) -> jax.Array:
  """A matrix of one layer from [D, ...] numbers of deviation 1."""
  names, shape = box.names[1:], box.value.shape[1:]
  at = names.index('embed')
  inputs, outputs = sides(names)
  deviation = math.prod(shape[i] for i in inputs) ** -0.5 * ((2 * config.layers) ** -0.5 if at in outputs else 1.0)
  return jnp.moveaxis(numbers.reshape(config.width, *shape[:at], *shape[at + 1:]), 0, at) * deviation


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """f32 numbers of mean 0 and deviation 1, none beyond 2.3."""
  return jax.random.truncated_normal(key, -2.0, 2.0, shape) / 0.87962566
