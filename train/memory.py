"""How many bytes a step needs beside its state: what the backward pass waits for, gradients, and a tile of logits.

From shapes alone, as the step is traced here and not as XLA then orders it: on a CPU within a quarter of what the compiled
program says of itself (`compiled.memory_analysis()`), and a third too much where attention's scores are written out, which XLA
computes again. Three things it does not know: XLA's CPU client undoes `remat` where layers are written out one by one; kernels
may need room of their own; and traced on a CPU for chips, products in bfloat16 are counted as the float32 that a CPU keeps.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from kernels.tiles import positions
from model.config import Compute
from model.decoder import Model, build
from train.build import Built
from train.edits import join
from train.work import HEADS, learning

TILES = 2              # of logits are held at a time: they and their gradient
WORD = 4               # bytes of a float32


def temporaries(built: Built, compute: Compute, rows: int, length: int, parts: int) -> int:
  """Bytes of a device when it holds most, for `rows` rows of the whole batch, taken in so many parts.

  That is as the backward pass goes through the layers, or through the last of them where layers are a loop or computed again.
  """
  config, mesh = built.model.config, built.mesh.shape
  mine, span = -(-rows // (parts * mesh['data'] * mesh['fsdp'])), -(-length // mesh['seq'])
  kept = _held(built, built.model, mine, span)
  layer = 0.0
  if compute.remat != 'none' or compute.scans(config.layers):
    layer = _held(built, build(config, replace(compute, remat='none')), mine, span) / config.layers
  tile = 0.0
  if not set(HEADS) & built.abstract.params.keys():
    tile = TILES * WORD * mine * min(span, positions(mine, config.vocab)) * config.vocab / mesh['tensor']
  models = 1 + len(built.abstract.params.get('critics', {}))
  sums = sum(WORD * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(built.abstract.params))
  return round(models * kept + max(tile, layer) + sums * (1 if parts == 1 else 2))


def _held(built: Built, model: Model, rows: int, length: int) -> float:
  """Bytes of what a forward pass keeps for the backward pass, down to the lowest layer that learns.

  All but what is as wide as the model is cut over 'tensor'.
  """
  config, tensor = built.model.config, built.mesh.shape['tensor']
  kept = saved(loss_of(model, rows, length), built.abstract.params, built.frozen)
  size = sum(leaf.size * leaf.dtype.itemsize / (1 if leaf.shape[-1:] == (config.width,) else tensor) for leaf in kept)
  return size * learning(built, built.abstract.params).reach / config.layers


def loss_of(model: Model, rows: int, length: int) -> Callable[[Any, Any], jax.Array]:
  """A loss that reads so many rows, and the vocabulary unless there is another head: all objectives keep as much, or nearly."""
  tokens_BL = jnp.zeros((rows, length), jnp.int32)

  def loss(params: Any, frozen: Any) -> jax.Array:
    tree = join(params, frozen)
    x_BLD = model.hidden(tree, tokens_BL, tokens_BL + 1).x_BLD
    return x_BLD.sum() if set(HEADS) & tree.keys() else model.nll(tree, x_BLD, tokens_BL, tokens_BL + 1.0).nll

  return loss


def saved(function: Callable[[Any, Any], jax.Array], params: Any, frozen: Any) -> list[jax.ShapeDtypeStruct]:
  """The arrays that a function leaves for its gradient by `params`, without what it was given."""

  def kept(params: Any, frozen: Any) -> list[jax.Array]:
    given = {id(leaf) for leaf in jax.tree.leaves((params, frozen))}
    back = jax.vjp(lambda params: function(params, frozen), params)[1]
    found = {id(leaf): leaf for leaf in jax.tree.leaves(back)}
    return [leaf for place, leaf in found.items() if place not in given and isinstance(leaf, jax.core.Tracer)]

  return jax.eval_shape(kept, params, frozen)
