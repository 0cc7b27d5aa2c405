"""Matrices that lie turned, [O, I], for decoding on a CPU.

XLA's CPU backend copies one side of a product into blocks before it multiplies. Of y = x w that is the matrix, which is large
where rows are few; of yT = wT xT it is x. Measured on two free cores with AVX-512 (SmolLM2-135M, jax 0.10.2, float32): a step
takes 0.81 to 0.90 of the time at 1 to 16 rows, 0.95 at 32, and no more than before when it reads a prompt. One row copies
nothing, and is read off whichever side is longer: with matrices of many more outputs than inputs as they were it takes 0.92.

Letters: M rows, I the dimensions that are summed over, O those of the matrix.
"""

import math
from typing import Any

import jax
from flax import struct

from model.config import Decoder
from model.linear import INPUTS, Weight, is_weight, matrix, multiply, ready
from model.sharding import is_cut

WIDE = 2                              # outputs to an input from which one row leaves a matrix as it is


@struct.dataclass
class Turned:
  """Stands for an array of `shape`, [*I, *O]."""

  w_OI: jax.Array
  shape: tuple[int, ...] = struct.field(pytree_node=False)


def turned(config: Decoder, params: Any, alone: bool) -> Any:
  """Parameters as `model.decoder.laid_out` gives them, their matrices turned where that pays, for one row or for several."""
  if jax.default_backend() != 'cpu' or config.compute_dtype != 'float32' or is_cut('tensor') or is_cut('fsdp'):
    return params
  inputs_of = INPUTS if config.head is not None else INPUTS | {'head': 1}

  def turn(path, leaf: Weight) -> Weight:
    inputs = inputs_of.get(path[-2].key) if path[-1].key == 'weight' else None
    if inputs is None or not isinstance(leaf, jax.Array):
      return leaf
    w_IO = leaf.reshape(math.prod(leaf.shape[:inputs]), -1)
    return leaf if alone and w_IO.shape[1] >= WIDE * w_IO.shape[0] else Turned(w_IO.T, leaf.shape)

  return jax.tree_util.tree_map_with_path(turn, params, is_leaf=lambda x: is_weight(x) and not isinstance(x, tuple))


@multiply.register
def _(w: Turned, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  leading = x.shape[:x.ndim - inputs]
  x_MI = x.reshape(math.prod(leading), -1).astype(w.w_OI.dtype)
  y_OM = jax.lax.optimization_barrier(w.w_OI @ x_MI.T)      # or XLA would turn the product again
  return y_OM.T.reshape(*leading, *w.shape[inputs:]).astype(x.dtype)


@matrix.register
def _(w: Turned, dtype: Any) -> jax.Array:
  return w.w_OI.T.reshape(w.shape)


@ready.register
def _(w: Turned, dtype: Any) -> Weight:
  return w
