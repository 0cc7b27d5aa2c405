"""Grouped matmul, for mixtures of experts: rows sorted by group, each group times a matrix of its own.

    y[r] = x[r] w[e]   for the rows r of group e

On GPUs and TPUs this is one operation (`jax.lax.ragged_dot`). XLA's CPU backend would multiply every row by every matrix and
discard most results, so there a loop goes over tiles of each group's rows. The last tile of a group may reach into the next
group's rows; those results are overwritten when that group's turn comes. `grouped_made` is for frozen matrices that are stored
in another form, such as quantised: on a CPU only one of them is decoded at a time.

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
  """y f32[R, F]: the first sizes[0] rows times w[0], the next sizes[1] times w[1]; sizes add up to R.

  Operands are cast to `dtype` (None: no cast) and accumulated in float32; gradients have the dtypes of x and w. On the CPU it
  has reverse mode only.
  """
  dtype = jnp.result_type(x_RD, w_EDF) if dtype is None else jnp.dtype(dtype)
  if jax.default_backend() == 'cpu':
    return _walked(*alike(x_RD, w_EDF, sizes_E), dtype)
  return jax.lax.ragged_dot(x_RD.astype(dtype), w_EDF.astype(dtype), sizes_E, preferred_element_type=jnp.float32)


def grouped_made(x_RD: jax.Array, w: Any, make: Callable[[Any], jax.Array], sizes_E: jax.Array, dtype: Any) -> jax.Array:
  """As `grouped`, with the matrices [D, F] = make(w[e]) in `dtype`; w is a tree of arrays whose first dimension is E.

  Only x gets a gradient, and the backward pass calls `make` again. On the CPU one matrix is in memory at a time, and none is
  made for an empty group; elsewhere all E are made in each pass, for one ragged_dot.
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
  """`make(part)` if the group has rows, else zeros."""
  like = jax.eval_shape(make, part)
  nothing, _ = alike(jnp.zeros(like.shape, like.dtype), rows)
  return jax.lax.cond(rows > 0, make, lambda _: nothing, part)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _walked(x_RD, w_EDF, sizes_E, dtype):
  def rows_times(rows, w_DF):
    return matmul(rows, w_DF, dtype).astype(jnp.float32)

  return _walk(x_RD.astype(dtype), w_EDF.astype(dtype), sizes_E, lambda w_DF, _: w_DF, rows_times, w_EDF.shape[2])


def _walk(x_RD, w, sizes_E, make, rows_times, width):
  """f32[R, width]: for each group, rows_times(its rows, make(its part of w, its number of rows)), a tile of rows at a time."""
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
  """The arrays, cast to vary over the same manual mesh axes: loops inside shard_map require that of their carries."""
  axes = frozenset().union(*(_varying(a) for a in arrays))
  missing = [tuple(sorted(axes - _varying(a))) for a in arrays]
  return [jax.lax.pcast(a, axes, to='varying') if axes else a for a, axes in zip(arrays, missing)]


def _varying(a):
  """The manual mesh axes over which an array varies."""
  return jax.typeof(a).manual_axis_type.varying


def _tile(x_RD, groups):
  """Rows of a tile: about half of a group's average, so that few are computed in vain."""
  half = max(1, x_RD.shape[0] // (2 * groups))
  return min(LARGEST, max(SMALLEST, 1 << (half - 1).bit_length()))


def _padded(a, size):
  """Padded by one tile, since a tile may begin at the last row."""
  return jnp.pad(a, ((0, size), (0, 0)))


def _bounds(sizes_E):
  """i32[E] each: the first row of each group, and the row after its last."""
  last = jnp.cumsum(sizes_E)
  return last - sizes_E, last


def _tiles(first, last, size, tile, carry):
  """Loops `tile(start, carry)` over the tiles of a group's rows."""
  return jax.lax.fori_loop(0, (last - first + size - 1) // size, lambda i, carry: tile(first + i * size, carry), carry)
