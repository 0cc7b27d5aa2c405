"""The one door through which blocks reach their weights: what a weight is decides how it multiplies."""

import math
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Weight = Any   # an array, or a pytree that stands for one and is registered with `multiply`


def weight(module: nn.Module, name: str, start: Callable, shape: tuple[int, ...], names: tuple[str, ...]) -> Weight:
  """The module's parameter: boxed with its logical names when it is born, and later whatever leaf the tree holds there.

  Linen would compare the leaf with its initialiser at every call, which costs time and refuses packed weights.
  """
  if module.has_variable('params', name):
    return module.get_variable('params', name)
  return module.param(name, nn.with_logical_partitioning(start, names), shape, jnp.float32, unbox=False).value


def normal(deviation: float) -> Callable:
  """An initialiser: normal numbers of this deviation, none of them beyond 2.3 deviations."""
  return nn.initializers.truncated_normal(deviation / 0.87962566)


@singledispatch
def multiply(w: Weight, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  """x[..., *I] times w[*I, *O] -> [..., *O] over the `inputs` dimensions I, operands in `dtype`, in the dtype of x."""
  kept = x.ndim - inputs
  summed = (tuple(range(kept, x.ndim)), tuple(range(inputs)))
  y = jax.lax.dot_general(x.astype(dtype), w.astype(dtype), (summed, ((), ())), preferred_element_type=jnp.float32)
  return y.astype(x.dtype)


def dense(x: jax.Array, w: Weight, *, inputs: int = 1, dtype: str = 'float32') -> jax.Array:
  """x[..., *I] w[*I, *O] -> [..., *O], in the dtype of x."""
  return multiply(w, x, inputs, dtype)


class Dense(nn.Module):
  """x[..., *I] -> [..., *O]: a weight [*I, *O] that starts at gain / sqrt(fan in), and a bias that starts at 0."""

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  names: tuple[str, ...]              # logical, of I and O
  bias: bool
  dtype: str
  gain: float = 1.0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    start = normal(self.gain / math.prod(self.inputs) ** 0.5)
    w = weight(self, 'weight', start, (*self.inputs, *self.outputs), self.names)
    y = dense(x, w, inputs=len(self.inputs), dtype=self.dtype)
    if not self.bias:
      return y
    names = tuple('width' if name == 'embed' else name for name in self.names[len(self.inputs):])
    return y + weight(self, 'bias', nn.initializers.zeros, self.outputs, names).astype(y.dtype)
