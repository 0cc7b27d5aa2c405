"""Laws of `kernels.matmul`: it is x @ w, whatever the rank, the type and what is done with the result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.matmul import matmul

RANKS = [(6,), (1,), (5, 3), (1, 7), (4, 1), (2, 3, 4), (1, 2, 3), (2, 1, 1)]


def operands(leading, inputs=16, outputs=24):
  rng = np.random.default_rng(0)
  shapes = [(*leading, inputs), (inputs, outputs), (*leading, outputs)]
  return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def truth(x, w, g):
  """The product and its two gradients in float64."""
  x, w, g = (np.asarray(a, np.float64) for a in (x, w, g))
  return x @ w, g @ w.T, x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])


def product_and_gradients(x, w, g, dtype):
  y, pull = jax.vjp(lambda x, w: matmul(x, w, dtype), x, w)
  return y, *pull(g.astype(y.dtype))


def flipped(a):
  return a.reshape(-1, a.shape[-1]).T


def compiled(f, *args):
  return jax.jit(f).lower(*args).compile().as_text()


def test_product_and_gradients_at_every_rank():
  cases = [operands(leading) for leading in RANKS]
  run = jax.jit(lambda cases, dtype: [product_and_gradients(*case, dtype) for case in cases], static_argnums=1)
  for dtype, tolerance in ((None, 1e-5), (jnp.bfloat16, 2e-2)):
    for case, got in zip(cases, run(cases, dtype)):
      for value, expected in zip(got, truth(*case)):
        assert value.shape == expected.shape and value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_transposed_results_run_at_every_rank():
  """XLA's CPU backend fails at run time where it folds such a transpose into a bfloat16 product."""
  cases = [operands(leading) for leading in RANKS]
  run = jax.jit(lambda cases: [[flipped(a) for a in product_and_gradients(*case, jnp.bfloat16)] for case in cases])
  for case, got in zip(cases, run(cases)):
    for value, expected in zip(got, truth(*case)):
      np.testing.assert_allclose(value, flipped(expected), rtol=2e-2, atol=2e-2 * np.abs(expected).max())


def test_operands_are_rounded_and_sums_are_not():
  """bfloat16 cannot tell 1 + 2**-12 from 1, and a sum kept in it cannot tell 257 from 256."""
  x, w, g = np.full((257, 1, 512), 1 + 2.0**-12, np.float32), np.ones((512, 4), np.float32), np.ones((257, 1, 4))
  y, dx, dw = product_and_gradients(x, w, g * np.float32(1 + 2.0**-12), jnp.bfloat16)
  np.testing.assert_array_equal(y, 512.0)
  np.testing.assert_array_equal(dx, 4.0)
  np.testing.assert_array_equal(dw, 257.0)
  assert float(matmul(x, w)[0, 0, 0]) > 512.0


def test_narrow_activations_get_narrow_gradients():
  x, w, g = operands((2, 3))
  _, dx, dw = product_and_gradients(jnp.asarray(x, jnp.bfloat16), w, g, jnp.bfloat16)
  assert dx.dtype == jnp.bfloat16 and dw.dtype == jnp.float32


def test_maps_over_examples():
  """Per-example gradients by vmap are the gradients of the examples."""
  x, w, g = operands((3, 4, 5))
  one = jax.jit(lambda x, g: product_and_gradients(x, w, g, jnp.bfloat16)[2])
  expected = np.stack([one(*pair) for pair in zip(x, g)])
  np.testing.assert_allclose(jax.jit(jax.vmap(one))(x, g), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='about the CPU backend')
@pytest.mark.parametrize('leading', [(2, 64), (1, 128), (128,)])
def test_weight_gradient_reaches_the_matrix_units(leading):
  """Its transposed operand arrives in bfloat16; contracted over one dimension it would be widened (the control)."""
  x, w, g = (a.astype(jnp.bfloat16) for a in operands(leading, 64, 96))

  def ours(x, g):
    return jax.vjp(lambda w: matmul(x, w, jnp.bfloat16), w)[1](g.astype(jnp.float32))[0]

  def plain(x, g):
    return jnp.dot(flipped(x), g.reshape(-1, 96), preferred_element_type=jnp.float32)

  assert 'bf16[64,128]' in compiled(ours, x, g)
  assert 'bf16[64,128]' not in compiled(plain, x, g)


@pytest.mark.parametrize('dtype', [None, jnp.bfloat16])
def test_several_dimensions_in_and_out(dtype):
  """Heads of a size into a width, and a width into heads, are the flat products."""
  x, w, g = operands((2, 3), inputs=24, outputs=30)
  shaped = x.reshape(2, 3, 4, 6), w.reshape(4, 6, 2, 3, 5), g.reshape(2, 3, 2, 3, 5)

  @jax.jit
  def run(x, w, g):
    y, pull = jax.vjp(lambda x, w: matmul(x, w, dtype, inputs=2), x, w)
    return y, *pull(g)

  for got, expected, like in zip(run(*shaped), truth(x, w, g), (shaped[2], shaped[0], shaped[1])):
    tolerance = 1e-5 if dtype is None else 2e-2
    np.testing.assert_allclose(got, expected.reshape(like.shape), rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_mismatched_shapes_are_named():
  with pytest.raises(ValueError, match=r'\(2, 3\) and \(4, 5\)'):
    matmul(jnp.ones((2, 3)), jnp.ones((4, 5)))
