"""A matrix product that rounds its operands at the matmul only, with a backward pass laid out for speed.

Left to automatic differentiation, the gradient of `x @ w` with respect to w is (gᵀ x)ᵀ: XLA's CPU backend runs that at
half the speed of xᵀ g, and in bfloat16 never on the matrix units at all. Written out, the three products of one
Llama-sized layer (forward, dx, dw) go 1.05 to 2 times faster in float32 and, on a CPU with AMX, 4 to 8 times faster in
bfloat16.

Letters: `..` any leading dimensions, I inputs, O outputs.
"""

from functools import partial

import jax
import jax.numpy as jnp


def matmul(x: jax.Array, w_IO: jax.Array, dtype: jnp.dtype | type | None = None) -> jax.Array:
  """y_..O = x_..I @ w_IO, with operands cast to `dtype` and products added up in float32.

  The result is float32 on the CPU, which only emulates elementwise arithmetic on narrow types, and `dtype` on
  accelerators. The gradient of x comes in x's type, that of w in w's type from a float32 sum: a float32 master weight
  sees no rounding of its gradient. `dtype=None` computes in the operands' own type. Reverse mode only.
  """
  if w_IO.ndim != 2 or x.shape[-1] != w_IO.shape[0]:
    raise ValueError(f'matmul of {x.shape} and {w_IO.shape}: the last dimension of x must be the first of two of w')
  dtype = jnp.result_type(x, w_IO) if dtype is None else dtype
  return _matmul(x, w_IO, jnp.dtype(dtype), x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _matmul(x, w_IO, dtype, x_dtype):
  y = jnp.tensordot(x.astype(dtype), w_IO.astype(dtype), 1, preferred_element_type=_stored(dtype))
  return settled(y, dtype)


def _forward(x, w_IO, dtype, x_dtype):
  x = x.astype(dtype)
  return _matmul(x, w_IO, dtype, x_dtype), (x, w_IO)


def _backward(dtype, x_dtype, saved, g):
  x, w_IO = saved
  g = g.astype(dtype)
  dx = jnp.tensordot(g, w_IO.astype(dtype), (-1, 1), preferred_element_type=_stored(dtype))
  both = ((0, 1), (0, 1))
  dw_IO = jnp.tensordot(_two_leading(x), _two_leading(g), both, preferred_element_type=jnp.float32)
  return settled(dx, dtype).astype(x_dtype), settled(dw_IO, dtype).astype(w_IO.dtype)


_matmul.defvjp(_forward, _backward)


def _emulated(dtype):
  return jnp.finfo(dtype).bits < 32 and jax.default_backend() == 'cpu'


def _stored(dtype):
  """The type that products come out in: what the CPU multiplies fast, what accelerators should store."""
  return jnp.dtype(jnp.float32) if _emulated(dtype) else dtype


def _two_leading(x):
  """x as [a, b, last], with a and b above 1 where the sizes allow it.

  XLA's CPU backend lays a product contracted over two dimensions out afresh, ahead of the matrix units; where it is
  contracted over one, and that one comes first, it widens both operands to float32 instead.
  """
  if x.ndim >= 3 and 1 < x.shape[0] < x.size // x.shape[-1]:
    return x.reshape(x.shape[0], -1, x.shape[-1])
  count = x.size // x.shape[-1]
  parts = 2 if count % 2 == 0 else 1
  return x.reshape(parts, count // parts, x.shape[-1])


def settled(y, dtype):
  """y, out of reach of the rewrite that turns the transpose of a product into a product of transposes.

  XLA's CPU backend (seen in jax 0.10.2 and 0.12.0) makes that rewrite after it has decided that it can run a bfloat16
  product as it stands, and then cannot run the new one ("Unsupported element type for DotThunk").
  """
  return jax.lax.optimization_barrier(y) if _emulated(dtype) else y
