"""Rows that lie sorted by group, each group times a matrix of its own: mixtures of experts.

GPUs and TPUs have that as one operation (`jax.lax.ragged_dot`). XLA's CPU backend multiplies every row by every matrix and
drops what was not asked for; there, tiles of a group's rows are walked instead, as many as the group has. A tile that
reaches into the next group spoils rows that the next group then writes. Where matrices are made of something smaller and
never learn, one of them exists at a time (`grouped_made`).

Letters: R rows, D their width, E groups, F the width of results, T rows of a tile.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kernels.matmul import matmul

SMALLEST, LARGEST = 8, 128            # rows of a tile


def grouped(x_RD: jax.Array, w_EDF: jax.Array, sizes_E: jax.Array, dtype: Any = None) -> jax.Array:
  """y[R, F] in float32: the first sizes[0] rows times w[0], the next sizes[1] times w[1]; sizes add up to R.

  Operands are cast to `dtype` (None: as they are), sums are float32; gradients come in the types of x and w. Reverse mode
  only on the CPU.
  """
  dtype = jnp.result_type(x_RD, w_EDF) if dtype is None else jnp.dtype(dtype)
  if jax.default_backend() == 'cpu':
    return _walked(*alike(x_RD, w_EDF, sizes_E), dtype)
  return jax.lax.ragged_dot(x_RD.astype(dtype), w_EDF.astype(dtype), sizes_E, preferred_element_type=jnp.float32)


def grouped_made(x_RD: jax.Array, w: Any, make: Callable[[Any], jax.Array], sizes_E: jax.Array, dtype: Any) -> jax.Array:
  """As `grouped`, by the matrices [D, F] that `make` makes in `dtype` of each part of w, a tree whose leaves lead with E.

  They never learn: gradients go to x alone, and the backward pass makes them again. On the CPU one exists at a time, and
  none of a group without rows; elsewhere, where the product is one operation, all of them in either pass.
  """
  leaves, tree = jax.tree.flatten(w)
  x_RD, sizes_E, *leaves = alike(x_RD, sizes_E, *leaves)
  return _made(make, jnp.dtype(dtype), x_RD.dtype, x_RD, jax.tree.unflatten(tree, leaves), sizes_E)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _made(make, dtype, x_dtype, x_RD, w, sizes_E):
  x = x_RD.astype(dtype)
  if jax.default_backend() != 'cpu':
    x, w = jax.lax.optimization_barrier((x, w))
    return jax.lax.ragged_dot(x, jax.vmap(make)(w), sizes_E, preferred_element_type=jnp.float32)

  def rows_times(rows, w_DF):
    return matmul(rows, w_DF, dtype).astype(jnp.float32)

  return _walk(x, w, sizes_E, partial(_if_any, make), rows_times, _shape(make, w)[1])


def _made_forward(make, dtype, x_dtype, x_RD, w, sizes_E):
  return _made(make, dtype, x_dtype, x_RD, w, sizes_E), (w, sizes_E)


def _made_backward(make, dtype, x_dtype, saved, g_RF):
  """The gradient of x."""
  w, sizes_E = saved
  width = _shape(make, w)[0]
  if jax.default_backend() != 'cpu':
    g_RF, w = jax.lax.optimization_barrier((g_RF, w))
    w_EDF = jax.vmap(make)(w)
    like = jnp.zeros((len(g_RF), width), dtype)
    pull = jax.vjp(lambda x: jax.lax.ragged_dot(x, w_EDF, sizes_E, preferred_element_type=jnp.float32), like)[1]
    return pull(g_RF)[0].astype(x_dtype), None, None

  def rows_times(rows, w_DF):
    return matmul(rows, w_DF.T, dtype).astype(jnp.float32)

  return _walk(g_RF, w, sizes_E, partial(_if_any, make), rows_times, width).astype(x_dtype), None, None


_made.defvjp(_made_forward, _made_backward)


def _shape(make, w):
  return jax.eval_shape(make, jax.tree.map(lambda leaf: leaf[0], w)).shape


def _if_any(make, part, rows):
  """What `make` makes of it, where there are rows to multiply."""
  like = jax.eval_shape(make, part)
  nothing, _ = alike(jnp.zeros(like.shape, like.dtype), rows)
  return jax.lax.cond(rows > 0, make, lambda _: nothing, part)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _walked(x_RD, w_EDF, sizes_E, dtype):
  def rows_times(rows, w_DF):
    return matmul(rows, w_DF, dtype).astype(jnp.float32)

  return _walk(x_RD.astype(dtype), w_EDF.astype(dtype), sizes_E, lambda w_DF, _: w_DF, rows_times, w_EDF.shape[2])


def _walk(x_RD, w, sizes_E, make, rows_times, width):
  """f32[R, width]: `rows_times` of a tile of a group's rows and of what `make` makes of its part of w and its count of rows."""
  size = _tile(x_RD, len(sizes_E))
  x = _padded(x_RD, size)

  def group(y, each):
    def tile(start, y):
      rows = jax.lax.dynamic_slice_in_dim(x, start, size)
      return jax.lax.dynamic_update_slice_in_dim(y, rows_times(rows, made), start, 0)

    first, last, part = each
    made = make(part, last - first)
    return _tiles(first, last, size, tile, y), None

  start, _ = alike(jnp.zeros((x.shape[0], width), jnp.float32), x)
  return jax.lax.scan(group, start, (*_bounds(sizes_E), w))[0][:x_RD.shape[0]]


def _forward(x_RD, w_EDF, sizes_E, dtype):
  return _walked(x_RD, w_EDF, sizes_E, dtype), (x_RD, w_EDF, sizes_E)


def _backward(dtype, saved, g_RF):
  x_RD, w_EDF, sizes_E = saved
  size = _tile(x_RD, len(sizes_E))
  x, g = _padded(x_RD.astype(dtype), size), _padded(g_RF, size)

  def group(dx, each):
    def tile(start, both):
      dx, dw_DF = both
      x_TD, g_TF = (jax.lax.dynamic_slice_in_dim(a, start, size) for a in (x, g))
      g_TF = jnp.where((start + jnp.arange(size) < last)[:, None], g_TF, 0)
      more_TD, more_DF = jax.vjp(lambda x, w: matmul(x, w, dtype).astype(jnp.float32), x_TD, w_DF)[1](g_TF)
      return jax.lax.dynamic_update_slice_in_dim(dx, more_TD.astype(dx.dtype), start, 0), dw_DF + more_DF

    first, last, w_DF = each
    return _tiles(first, last, size, tile, (dx, alike(jnp.zeros(w_DF.shape, jnp.float32), x)[0]))

  start, _ = alike(jnp.zeros(x.shape, x_RD.dtype), x)
  dx, dw_EDF = jax.lax.scan(group, start, (*_bounds(sizes_E), w_EDF.astype(jnp.float32)))
  return dx[:x_RD.shape[0]], dw_EDF.astype(w_EDF.dtype), None


_walked.defvjp(_forward, _backward)


def alike(*arrays):
  """The arrays, each a value of its own to every device that one of them is that to: loops inside shard_map want it so."""
  axes = frozenset().union(*(_varying(a) for a in arrays))
  missing = [tuple(sorted(axes - _varying(a))) for a in arrays]
  return [jax.lax.pcast(a, axes, to='varying') if axes else a for a, axes in zip(arrays, missing)]


def _varying(a):
  """The axes of the mesh along which a device has a value of its own."""
  return jax.typeof(a).manual_axis_type.varying


def _tile(x_RD, groups):
  """Rows of a tile: about half of what a group has, so that few are multiplied in vain."""
  half = max(1, x_RD.shape[0] // (2 * groups))
  return min(LARGEST, max(SMALLEST, 1 << (half - 1).bit_length()))


def _padded(a, size):
  """With room for a tile that begins at the last row."""
  return jnp.pad(a, ((0, size), (0, 0)))


def _bounds(sizes_E):
  """The first row of each group, and the row after its last."""
  last = jnp.cumsum(sizes_E)
  return last - sizes_E, last


def _tiles(first, last, size, tile, carry):
  """`tile(start, carry)` for each tile of a group's rows."""
  return jax.lax.fori_loop(0, (last - first + size - 1) // size, lambda i, carry: tile(first + i * size, carry), carry)
