"""The loss head and the matrix product on a GPU, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import tiles
from kernels.matmul import matmul
from tests.kernels.head_table import close, objective, truth, weighed_logp
from tests.kernels.test_matmul import operands, product_and_gradients
from tests.kernels.test_matmul import truth as product

pytestmark = pytest.mark.gpu

B, L, D, V = 4, 96, 128, 1000


@pytest.fixture(params=[100, 33], ids=['one tile', 'tiles'])
def data(request, monkeypatch):
  """x, w, targets and weights, of which some are 0; in one tile of the head, or in three of which the last is short."""
  monkeypatch.setattr(tiles, 'TILE', request.param * B * V)
  rng = np.random.default_rng(0)
  weights = rng.uniform(0, 2, (B, L)) * (rng.uniform(size=(B, L)) < 0.7)
  x, w = rng.normal(size=(B, L, D)), rng.normal(size=(D, V)) * 0.1
  return x.astype(np.float32), w.astype(np.float32), rng.integers(0, V, (B, L)), weights.astype(np.float32)


@pytest.mark.parametrize('dtype, tolerance', [(None, 2e-5), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize('softcap, z', [(None, 0.0), (4.0, 0.3)])
def test_the_loss_and_its_gradients(data, dtype, tolerance, softcap, z):
  with jax.default_matmul_precision('highest'):
    (_, sums), gradients = jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True), static_argnums=(4, 5, 6, 7))(
      *data, softcap, z, 0.0, dtype)
  expected, _, *expected_gradients = truth(*data, softcap, z, dtype=dtype)
  for value, true in zip((*sums[:2], *gradients), (*expected[:2], *expected_gradients)):
    close(value, true, tolerance)


def test_log_probabilities_and_their_gradients(data):
  with jax.default_matmul_precision('highest'):
    (_, logp), gradients = jax.jit(jax.value_and_grad(weighed_logp, (0, 1), has_aux=True))(*data)
  _, true, *expected = truth(*data)
  close(logp, true, 2e-5)
  for value, gradient in zip(gradients, expected):
    close(value, -gradient, 2e-5)


@pytest.mark.parametrize('dtype, tolerance', [(None, 1e-5), (jnp.bfloat16, 2e-2)])
def test_a_product_and_its_gradients(dtype, tolerance):
  x, w, g = operands((3, 130), 256, 192)
  with jax.default_matmul_precision('highest'):
    got = jax.jit(lambda *data: product_and_gradients(*data, dtype))(x, w, g)
  for value, expected in zip(got, product(x, w, g)):
    np.testing.assert_allclose(np.asarray(value, np.float32), expected, rtol=tolerance,
                               atol=tolerance * np.abs(expected).max())


def test_products_are_stored_as_narrow_as_they_are_multiplied():
  """In float32 they would move twice the bytes; the gradient of a master weight comes in float32 all the same."""
  x, w, g = operands((3, 130), 256, 192)
  y, _, dw = product_and_gradients(x, w, g, jnp.bfloat16)
  assert y.dtype == jnp.bfloat16 and dw.dtype == jnp.float32 and matmul(x, w).dtype == jnp.float32
