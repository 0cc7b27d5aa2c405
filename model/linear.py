"""The matmuls of blocks, dispatched on the type of the weight: an array, quantised, with adapters.

Letters: S dimensions before a matrix (layers, experts), I the dimensions that it multiplies from, O those it gives, E experts,
R rows.
"""

from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from kernels.grouped import grouped
from kernels.matmul import matmul
from model.sharding import is_cut

Weight = Any   # an array, or a pytree that stands for one and is registered with `multiply`, `matrix` and `ready`

INPUTS = {'qkv': 1, 'out': 2, 'up': 1, 'down': 1}   # the matrices of a block, and how many dimensions I has


def weight(module: nn.Module, name: str, shape: tuple[int, ...], names: tuple[str, ...]) -> Weight:
  """The module's parameter, a leaf of any type; while initialising, zeros boxed with their logical names.

  Linen would compare the leaf with its initialiser at every call, which costs time and refuses packed weights.
  """
  if module.has_variable('params', name):
    return module.get_variable('params', name)
  start = nn.with_logical_partitioning(nn.initializers.zeros, names)
  return module.param(name, start, shape, jnp.float32, unbox=False).value


@singledispatch
def multiply(w: Weight, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  """x[..., *I] times w[*I, *O] -> [..., *O] over the `inputs` dimensions I, operands in `dtype`, in the dtype of x."""
  if w.ndim - inputs > 1 and is_cut('tensor'):   # one long dimension could not be cut where several were
    y = checkpoint_name(jnp.tensordot(x.astype(dtype), w.astype(dtype), inputs), 'matmul')
  else:
    y = matmul(x, w, jnp.dtype(dtype), inputs)
  return y.astype(x.dtype)


@singledispatch
def matrix(w: Weight, dtype: Any) -> jax.Array:
  """The array [*S, *I, *O] that a weight stands for: an array is returned as it is, anything else computed in `dtype`."""
  return w


@singledispatch
def ready(w: Weight, dtype: Any) -> Weight:
  """The weight for many small forward passes: cast once to the dtype that they would cast it to each time."""
  return w.astype(dtype)


@singledispatch
def frozen(w: Weight, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  """As `multiply`, by a weight that never learns: only the weight is saved for the backward pass, and not x."""
  return worked_out(w, x, inputs, dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def worked_out(w: Weight, x: jax.Array, inputs: int, dtype: str) -> jax.Array:
  """As `frozen`, by the matrix that the weight stands for, computed again in each pass."""
  return _made(w, x, inputs, dtype)


def _made(w, x, inputs, dtype):
  w, x = _late(w, x)
  return multiply(matrix(w, dtype), x, inputs, dtype)


def _late(w: Weight, x: jax.Array) -> tuple[Weight, jax.Array]:
  """Both, behind a barrier: no matrix is computed from w before x is there.

  Without it XLA would compute them all at the start, or once for both passes, and keep them. (Its CPU backend drops barriers
  before it plans memory: there only a loop over the layers keeps one matrix at a time.)
  """
  return (w, x) if isinstance(w, jax.Array) else jax.lax.optimization_barrier((w, x))


def _forward(w, x, inputs, dtype):
  return checkpoint_name(_made(w, x, inputs, dtype), 'matmul'), w


def _backward(inputs, dtype, w, g):
  """The gradient of x."""
  w, g = _late(w, g)
  w = matrix(w, dtype)
  like = jnp.zeros(g.shape[:g.ndim - (w.ndim - inputs)] + w.shape[:inputs], g.dtype)
  return None, jax.vjp(lambda x: multiply(w, x, inputs, dtype), like)[1](g)[0]


worked_out.defvjp(_forward, _backward)


class Routed(NamedTuple):
  """The matrices of experts as arrays that a mesh can cut, and the function that multiplies by them."""

  arrays: tuple[jax.Array, ...]       # each leads with E
  names: tuple[tuple[str | None, ...], ...]     # logical, of each: how a device's part lies
  times: Callable[..., jax.Array]     # (rows sorted by expert [R, I], rows of each expert i32[E], *arrays) to f32[R, *O]


@singledispatch
def routed(w: Weight, names: tuple[str | None, ...], dtype: str) -> Routed:
  """The matrices [E, I, *O] with their logical names, operands of the products in `dtype`."""
  return Routed((matrix(w, dtype),), (names,), partial(by_expert, dtype))


def by_expert(dtype: str, x_RI: jax.Array, sizes_E: jax.Array, w: jax.Array) -> jax.Array:
  """f32[R, *O]: rows sorted by expert, each times its own of the matrices [E, I, *O]."""
  return grouped(x_RI, w.reshape(*w.shape[:2], -1), sizes_E, dtype).reshape(len(x_RI), *w.shape[2:])


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


class Place(NamedTuple):
  """Where a matrix of the blocks stands in the tree of parameters, its layers stacked."""

  module: str                         # of INPUTS
  stacked: int                        # how many dimensions S has
  number: int                         # among all that the tree holds, in its order

  @property
  def inputs(self) -> int:
    return INPUTS[self.module]


def is_weight(x: Any) -> bool:
  """Whether a tree of parameters ends in x: anything but a dict of more."""
  return not isinstance(x, dict)


def edited(params: Any, change: Callable[[Place, Weight], Weight]) -> Any:
  """The tree with `change` made of each matrix of its blocks; embedding, head, router, norms and biases stay."""
  leaves, tree = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_weight)
  made = []
  for number, (path, leaf) in enumerate(leaves):
    names = [part.key for part in path]
    alone = names[-1] == 'weight'     # a module of its own; experts hold theirs by name, with a dimension for experts
    module = names[-2] if alone else names[-1]
    inside = names[0] == 'layers' and module in INPUTS
    made.append(change(Place(module, 1 if alone else 2, number), leaf) if inside else leaf)
  return jax.tree.unflatten(tree, made)
