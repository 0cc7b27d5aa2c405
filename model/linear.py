"""The one door through which blocks reach their weights: what a weight is decides how it multiplies."""

import math
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from kernels.matmul import matmul
from model.sharding import is_cut

Weight = Any   # an array, or a pytree that stands for one and is registered with `multiply`


def weight(module: nn.Module, name: str, shape: tuple[int, ...], names: tuple[str, ...]) -> Weight:
  """The module's parameter: whatever leaf the tree holds there. In a new tree, zeros boxed with their logical names.

  Linen would compare the leaf with its initialiser at every call, which costs time and refuses packed weights.
  """
  if module.has_variable('params', name):
    return module.get_variable('params', name)
  start = nn.with_logical_partitioning(nn.initializers.zeros, names)
  return module.param(name, start, shape, jnp.float32, unbox=False).value


@singledispatch
def multiply(w: Weight, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  """x[..., *I] times w[*I, *O] -> [..., *O] over the `inputs` dimensions I, operands in `dtype`, in the dtype of x."""
  leading, outputs = x.shape[:x.ndim - inputs], w.shape[inputs:]
  if len(outputs) > 1 and is_cut('tensor'):   # one long dimension could not be cut where several were
    y = jnp.tensordot(x.astype(dtype), w.astype(dtype), inputs)
  else:
    y = matmul(x.reshape(*leading, -1), w.reshape(math.prod(w.shape[:inputs]), -1), jnp.dtype(dtype))
  return y.reshape(*leading, *outputs).astype(x.dtype)


def dense(x: jax.Array, w: Weight, *, inputs: int = 1, dtype: str = 'float32') -> jax.Array:
  """x[..., *I] w[*I, *O] -> [..., *O], in the dtype of x."""
  return multiply(w, x, inputs, dtype)


class Dense(nn.Module):
  """x[..., *I] -> [..., *O]: times a weight [*I, *O], plus a bias [*O] if there is one."""

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  names: tuple[str, ...]              # logical, of I and O
  bias: bool
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    w = weight(self, 'weight', (*self.inputs, *self.outputs), self.names)
    y = dense(x, w, inputs=len(self.inputs), dtype=self.dtype)
    if not self.bias:
      return y
    names = tuple('width' if name == 'embed' else name for name in self.names[len(self.inputs):])
    return y + weight(self, 'bias', self.outputs, names).astype(y.dtype)
