"""Grouped matmul: every implementation against a product for each row, with gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from kernels.grouped import grouped, grouped_made

SIZES = {'even': (10, 10, 10), 'empty groups': (0, 17, 0, 0, 24, 0), 'one has all': (0, 41),
         'tiles cut short': (1, 9, 8, 7, 200)}


def operands(sizes, dtype='float32', width=12, outputs=20):
  rng = np.random.default_rng(0)
  shapes = [(sum(sizes), width), (len(sizes), width, outputs), (sum(sizes), outputs)]
  return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def truth(x, w, g, sizes):
  """The product and its two gradients in float64."""
  x, w, g = (np.asarray(each, np.float64) for each in (x, w, g))
  group = np.repeat(np.arange(len(sizes)), sizes)
  dw = np.stack([x[group == e].T @ g[group == e] for e in range(len(sizes))])
  return np.einsum('rd,rdf->rf', x, w[group]), np.einsum('rf,rdf->rd', g, w[group]), dw


def close(got, expected, tolerance):
  for value, true in zip(got, expected, strict=True):
    np.testing.assert_allclose(np.asarray(value, np.float64), true, rtol=tolerance, atol=tolerance * np.abs(true).max())


def run(x, w, g, sizes, dtype=None):
  y, pull = jax.vjp(lambda x, w: grouped(x, w, sizes, dtype), x, w)
  return y, *pull(g.astype(y.dtype))


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-5), ('bfloat16', 1e-2)])
@pytest.mark.parametrize('name', SIZES)
def test_each_row_is_multiplied_by_the_matrix_of_its_group(name, dtype, tolerance):
  sizes = SIZES[name]
  data = operands(sizes, dtype)
  got = jax.jit(run)(*data, jnp.asarray(sizes, jnp.int32))
  assert got[0].dtype == jnp.float32 and got[1].dtype == got[2].dtype == dtype
  close(got, truth(*data, sizes), tolerance)


def test_a_row_in_the_wrong_group_is_seen():
  """The control: one row goes from a group to its neighbour, and all three results show it."""
  data = operands((10, 10, 10))
  got = jax.jit(run)(*data, jnp.asarray((10, 11, 9), jnp.int32))
  for value, true in zip(got, truth(*data, (10, 10, 10))):
    with pytest.raises(AssertionError):
      close([value], [true], 1e-2)


def test_operands_are_rounded_and_gradients_of_masters_are_not():
  x, w, g = operands((5, 300))
  sizes = jnp.asarray((5, 300), jnp.int32)
  _, dx, dw = jax.jit(run, static_argnums=4)(jnp.ones_like(x), w, jnp.ones_like(g), sizes, 'bfloat16')
  assert dx.dtype == dw.dtype == jnp.float32
  np.testing.assert_array_equal(dw[1], 300.0)     # a sum kept in bfloat16 stops at 256


def test_maps_over_examples():
  sizes = np.asarray([[3, 7, 0], [4, 0, 6]], np.int32)
  x, w, g = (jnp.stack([a, b]) for a, b in zip(operands((5, 5, 0)), operands((5, 5, 0))))
  got = jax.jit(jax.vmap(run))(x, w, g, sizes)
  for i in range(2):
    close([each[i] for each in got], truth(x[i], w[i], g[i], sizes[i]), 1e-5)


def test_on_a_mesh_each_device_walks_its_own_rows():
  """Matrices whole on each of two devices, or their outputs cut over four: the gradient of a matrix is the sum of all."""
  mesh = jax.make_mesh((2, 4), ('rows', 'outputs'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  sizes = np.asarray([[3, 7, 0], [4, 0, 6]], np.int32)
  x, w, g = operands((20,))[0], operands((5, 5, 5))[1], operands((20,))[2]

  def local(x, w, sizes):
    return grouped(x, w, sizes[0])

  spread = jax.shard_map(local, mesh=mesh, in_specs=(P('rows'), P(None, None, 'outputs'), P('rows')),
                         out_specs=P('rows', 'outputs'))
  y, pull = jax.jit(lambda x, w, g: (lambda y, pull: (y, pull(g)))(*jax.vjp(lambda x, w: spread(x, w, sizes), x, w)))(x, w, g)
  halves = [truth(x[part], w, g[part], each) for part, each in zip((slice(0, 10), slice(10, 20)), sizes)]
  close([y, *pull], [np.concatenate([a[0] for a in halves]), np.concatenate([a[1] for a in halves]),
                     halves[0][2] + halves[1][2]], 1e-5)


def halved(w):
  """Something smaller than the matrices that it stands for."""
  return {'codes': jnp.round(w * 8).astype(jnp.int8), 'step': jnp.full((len(w), 1, 1), 0.25)}


def make(part, dtype='float32'):
  return (part['codes'].astype(jnp.float32) * part['step']).astype(dtype)


def made_run(x, w, g, sizes, dtype='float32'):
  y, pull = jax.vjp(lambda x: grouped_made(x, w, partial(make, dtype=dtype), sizes, dtype), x)
  return y, *pull(g.astype(y.dtype))


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-5), ('bfloat16', 1e-2)])
@pytest.mark.parametrize('name', SIZES)
def test_grouped_made_multiplies_by_the_matrices_that_it_makes(name, dtype, tolerance):
  sizes = SIZES[name]
  x, w, g = operands(sizes, dtype)
  few = halved(w)
  got = jax.jit(made_run, static_argnums=4)(x, few, g, jnp.asarray(sizes, jnp.int32), dtype)
  assert got[0].dtype == jnp.float32 and got[1].dtype == dtype
  close(got, truth(x, jax.vmap(make)(few), g, sizes)[:2], tolerance)


def test_at_most_one_matrix_is_in_memory():
  """Compiled, in both passes; the control, given the matrices, holds all of them."""
  width, groups = 128, 16
  few = halved(jnp.ones((groups, width, width)))
  x, sizes = jnp.ones((32, width)), jnp.full((groups,), 2, jnp.int32)

  def temporaries(product) -> int:
    step = jax.jit(lambda x, few: jax.vjp(lambda x: product(x, few), x)[1](x))
    return step.lower(x, few).compile().memory_analysis().temp_size_in_bytes

  whole = 4 * width * width
  assert temporaries(lambda x, few: grouped_made(x, few, make, sizes, 'float32')) < 4 * whole
  assert temporaries(lambda x, few: grouped(x, jax.vmap(make)(few), sizes)) > groups * whole


def test_on_a_mesh_a_device_makes_its_own_part_of_each_matrix():
  """Outputs cut over four devices, rows over two: the gradient of a row is the sum of what four devices have of it."""
  mesh = jax.make_mesh((2, 4), ('rows', 'outputs'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  sizes = np.asarray([[3, 7, 0], [4, 0, 6]], np.int32)
  x, few, g = operands((20,))[0], halved(operands((5, 5, 5))[1]), operands((20,))[2]
  lay = {'codes': P(None, None, 'outputs'), 'step': P()}
  spread = jax.shard_map(lambda x, w, sizes: grouped_made(x, w, make, sizes[0], 'float32'), mesh=mesh,
                         in_specs=(P('rows'), lay, P('rows')), out_specs=P('rows', 'outputs'))
  y, pull = jax.jit(lambda x, w, g: (lambda y, pull: (y, pull(g)))(*jax.vjp(lambda x: spread(x, w, sizes), x)))(x, few, g)
  halves = [truth(x[part], jax.vmap(make)(few), g[part], each) for part, each in zip((slice(0, 10), slice(10, 20)), sizes)]
  close([y, *pull], [np.concatenate([a[i] for a in halves]) for i in range(2)], 1e-5)
