"""An estimate of the bytes that a step needs beside its state: saved activations, gradients, and a tile of logits.

From shapes alone, by tracing the step without compiling it. On a CPU it is within a quarter of `compiled.memory_analysis()`,
and a third too high where attention writes out its scores, which XLA computes again. Three things it does not know: XLA's CPU
client undoes `remat` where layers are unrolled; kernels may need workspace; and when a CPU traces for a GPU or TPU, products in
bfloat16 are counted as the float32 that a CPU keeps.
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
from train.flops import HEADS, learning

TILES = 2              # of logits are held at a time: they and their gradient
WORD = 4               # bytes of a float32


def temporaries(built: Built, compute: Compute, rows: int, length: int, parts: int) -> int:
  """The most bytes that a device holds at once, for a batch of `rows` rows that is taken in `parts` parts.

  That is in the backward pass. With remat or a scan over layers, the activations of one layer come on top.
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
  """Bytes that a forward pass saves for the backward pass, down to the lowest layer that learns.

  Arrays whose last dimension is the model's width are whole on each device; all others are cut over 'tensor'.
  """
  config, tensor = built.model.config, built.mesh.shape['tensor']
  kept = saved(loss_of(model, rows, length), built.abstract.params, built.frozen)
  size = sum(leaf.size * leaf.dtype.itemsize / (1 if leaf.shape[-1:] == (config.width,) else tensor) for leaf in kept)
  return size * learning(built, built.abstract.params).reach / config.layers


def loss_of(model: Model, rows: int, length: int) -> Callable[[Any, Any], jax.Array]:
  """A next-token loss of so many rows, without the vocabulary if there is another head. Other objectives save about as much."""
  tokens_BL = jnp.zeros((rows, length), jnp.int32)

  def loss(params: Any, frozen: Any) -> jax.Array:
    tree = join(params, frozen)
    x_BLD = model.hidden(tree, tokens_BL, tokens_BL + 1).x_BLD
    return x_BLD.sum() if set(HEADS) & tree.keys() else model.nll(tree, x_BLD, tokens_BL, tokens_BL + 1.0).nll

  return loss


def saved(function: Callable[[Any, Any], jax.Array], params: Any, frozen: Any) -> list[jax.ShapeDtypeStruct]:
  """The arrays that a function saves for its gradient by `params`, its own arguments aside."""

  def kept(params: Any, frozen: Any) -> list[jax.Array]:
    given = {id(leaf) for leaf in jax.tree.leaves((params, frozen))}
    back = jax.vjp(lambda params: function(params, frozen), params)[1]
    found = {id(leaf): leaf for leaf in jax.tree.leaves(back)}
    return [leaf for place, leaf in found.items() if place not in given and isinstance(leaf, jax.core.Tracer)]

  return jax.eval_shape(kept, params, frozen)
