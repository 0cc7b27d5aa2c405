"""Mixed-precision matmul: operands are cast for the product alone, with a backward pass in the layout that XLA runs fastest.

    y = x w,   dx = g wᵀ,   dw = xᵀ g

Automatic differentiation gives dw = (gᵀ x)ᵀ, which XLA's CPU backend runs at half the speed of xᵀ g, and in bfloat16 never on
the CPU's matrix units (AMX). Written out, the three products of a layer of Llama's size are 1.05 to 2 times as fast in float32
and, on a CPU with AMX, 4 to 8 times as fast in bfloat16.

Letters: `..` any leading dimensions, I the dimensions that are summed over, O those of the result.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name


def matmul(x: jax.Array, w: jax.Array, dtype: jnp.dtype | type | None = None, inputs: int = 1) -> jax.Array:
  """y[.., *O] = x[.., *I] w[*I, *O], summed over `inputs` dimensions I: operands cast to `dtype`, accumulated in float32.

  `dtype=None` uses the dtype to which x and w promote. The result is float32 on the CPU, which only emulates elementwise
  arithmetic in bfloat16, and `dtype` on accelerators. The gradients have the dtypes of x and w; that of w is accumulated in
  float32, so the gradient of a float32 master weight is not rounded. Reverse mode only. Under `jax.checkpoint` the name
  'matmul' saves the result, in its dtype.

  Raises: ValueError for shapes that do not fit.
  """
  if not 0 < inputs <= min(x.ndim, w.ndim) or x.shape[x.ndim - inputs:] != w.shape[:inputs]:
    raise ValueError(f'matmul of {x.shape} and {w.shape} over {inputs}: the last of x must be the first of w')
  dtype = jnp.result_type(x, w) if dtype is None else dtype
  return _matmul(x, w, jnp.dtype(dtype), inputs, x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _matmul(x, w, dtype, inputs, x_dtype):
  return _product(x.astype(dtype), w, dtype, inputs)


def _product(x, w, dtype, inputs):
  leading = x.ndim - inputs
  y = jnp.tensordot(_rows(x, leading), _matrix(w, inputs).astype(dtype), 1, preferred_element_type=_stored(dtype))
  return settled(y, dtype).reshape(*x.shape[:leading], *w.shape[inputs:])


def _rows(x, leading):
  return x.reshape(*x.shape[:leading], math.prod(x.shape[leading:]))


def _matrix(w, inputs):
  return w.reshape(math.prod(w.shape[:inputs]), -1)


def _forward(x, w, dtype, inputs, x_dtype):
  x = x.astype(dtype)
  return checkpoint_name(_product(x, w, dtype, inputs), 'matmul'), (x, w)


def _backward(dtype, inputs, x_dtype, saved, g):
  x, w = saved
  leading = x.ndim - inputs
  grads = _rows(g.astype(dtype), leading)
  dx = jnp.tensordot(grads, _matrix(w, inputs).astype(dtype), (-1, -1), preferred_element_type=_stored(dtype))
  rows, grads = (_laid_out(a, leading, dtype) for a in (_rows(x, leading), grads))
  summed = tuple(range(rows.ndim - 1))
  dw = jnp.tensordot(rows, grads, (summed, summed), preferred_element_type=jnp.float32)
  return settled(dx, dtype).astype(x_dtype).reshape(x.shape), settled(dw, dtype).astype(w.dtype).reshape(w.shape)


_matmul.defvjp(_forward, _backward)


def _emulated(dtype):
  return jnp.finfo(dtype).bits < 32 and jax.default_backend() == 'cpu'


def _stored(dtype):
  """The dtype of results: float32 where the CPU would emulate `dtype`, else `dtype`."""
  return jnp.dtype(jnp.float32) if _emulated(dtype) else dtype


def _laid_out(x, leading, dtype):
  """x with its `leading` dimensions reshaped so that XLA's CPU backend sums over them fast: to [all], or in bfloat16 [1, all].

  With one summed dimension, float32 operands are read in place; with two, the left one is transposed first, which costs more
  than it gains. In bfloat16 only two summed dimensions reach the matrix units: with a single leading one, XLA widens both
  operands to float32.
  """
  if jax.default_backend() != 'cpu':
    return x
  both = (1, -1) if _emulated(dtype) else (-1,)
  return x.reshape(*both, *x.shape[leading:])


def settled(y, dtype):
  """y behind an optimisation barrier, so that XLA does not turn a transpose of the product into a product of transposes.

  XLA's CPU backend (seen in jax 0.10.2 and 0.12.0) makes that rewrite after it has decided that it can run a bfloat16 product
  directly, and then fails on the new one ("Unsupported element type for DotThunk").
  """
  return jax.lax.optimization_barrier(y) if _emulated(dtype) else y
