"""Layouts of matrices for decoding on a CPU: transposed, [O, I], or in parts.

XLA's CPU backend copies one side of a product into blocks before it multiplies. Of y = x w that is the matrix, which is large
where rows are few; of yT = wT xT it is x. Measured on two free cores with AVX-512 (SmolLM2-135M, jax 0.10.2, float32): a step
takes 0.81 to 0.90 of the time at 1 to 16 rows, 0.95 at 32, and no more than before when it reads a prompt.

One row copies nothing, and takes as long as the matrix is read. Of a turned one that is fast where its rows are long. Others
stay as they are: with very many outputs the backend's two threads read far on end, with fewer they do so if the sum is cut into
parts, one product each. A matrix [576, 576] then takes 0.63 of the time, [576, 3072] 0.77, [256, 960] 0.50, [1024, 1024] as
long as before; a step of SmolLM2-135M takes 0.85.

Letters: M rows, I the dimensions that are summed over, O those of the matrix, P parts of I.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from model.config import Decoder
from model.linear import INPUTS, Weight, is_weight, matrix, multiply, ready
from model.sharding import is_cut

LONG = 1024                           # inputs from which one row, too, wants a matrix turned
FAR = 8192                            # outputs from which one row wants all inputs at once
PARTS = 4                             # that the inputs of others are cut into


@struct.dataclass
class Turned:
  """Stands for an array of `shape`, [*I, *O]."""

  w_OI: jax.Array
  shape: tuple[int, ...] = struct.field(pytree_node=False)


@struct.dataclass
class Parted:
  """Stands for an array of `shape`, [*I, *O], of which one row takes the inputs in parts."""

  w_IO: jax.Array
  shape: tuple[int, ...] = struct.field(pytree_node=False)


def turned(config: Decoder, params: Any, alone: bool) -> Any:
  """Parameters as `model.decoder.laid_out` gives them, their matrices as one row (`alone`) or several multiply them fastest."""
  if jax.default_backend() != 'cpu' or config.compute_dtype != 'float32' or is_cut('tensor') or is_cut('fsdp'):
    return params
  inputs_of = INPUTS if config.head is not None else INPUTS | {'head': 1}

  def lay(path, leaf: Weight) -> Weight:
    inputs = inputs_of.get(path[-2].key) if path[-1].key == 'weight' else None
    if inputs is None or not isinstance(leaf, jax.Array):
      return leaf
    w_IO = leaf.reshape(math.prod(leaf.shape[:inputs]), -1)
    if not alone or len(w_IO) >= LONG:
      return Turned(w_IO.T, leaf.shape)
    return leaf if w_IO.shape[1] >= FAR or len(w_IO) % PARTS else Parted(w_IO, leaf.shape)

  return jax.tree_util.tree_map_with_path(lay, params, is_leaf=lambda x: is_weight(x) and not isinstance(x, tuple))


@multiply.register
def _(w: Turned, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  leading = x.shape[:x.ndim - inputs]
  x_MI = x.reshape(math.prod(leading), -1).astype(w.w_OI.dtype)
  y_OM = jax.lax.optimization_barrier(w.w_OI @ x_MI.T)      # or XLA would turn the product again
  return y_OM.T.reshape(*leading, *w.shape[inputs:]).astype(x.dtype)


@multiply.register
def _(w: Parted, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  if math.prod(x.shape[:x.ndim - inputs]) > 1:            # a prompt
    return multiply(matrix(w, dtype), x, inputs, dtype)
  x_PI, w_PIO = x.reshape(PARTS, -1).astype(w.w_IO.dtype), w.w_IO.reshape(PARTS, -1, w.w_IO.shape[-1])
  y_PO = jnp.einsum('pi,pio->po', x_PI, w_PIO)
  return y_PO.sum(0).reshape(*x.shape[:x.ndim - inputs], *w.shape[inputs:]).astype(x.dtype)


@matrix.register
def _(w: Turned, dtype: Any) -> jax.Array:
  return w.w_OI.T.reshape(w.shape)


@matrix.register
def _(w: Parted, dtype: Any) -> jax.Array:
  return w.w_IO.reshape(w.shape)


@ready.register(Turned)
@ready.register(Parted)
def _(w: Weight, dtype: Any) -> Weight:
  return w
