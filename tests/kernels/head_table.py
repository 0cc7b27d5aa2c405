"""The test cases of the loss head, on CPU and GPU: operands, options, and the expected results in float64.

Letters: B rows, L positions, D width, V vocabulary.
"""

import jax
import jax.numpy as jnp
import numpy as np

from kernels.head import token_logp, weighted_nll

B, L, D, V = 3, 7, 8, 19
# soft cap, z coefficient, smoothing, operand type
PLAIN = (None, 0.0, 0.0, None)
WITH_Z = (None, 0.3, 0.0, None)


def inputs(length=L, batch=B, seed=0):
  """x, w, targets, and weights of which some are 0 and some above 1."""
  rng = np.random.default_rng(seed)
  x, w = rng.normal(size=(batch, length, D)), rng.normal(size=(D, V))
  weights = rng.uniform(0, 2, (batch, length)) * (rng.uniform(size=(batch, length)) < 0.7)
  weights[0, 0] = 1.5
  return x.astype(np.float32), w.astype(np.float32), rng.integers(0, V, (batch, length)), weights.astype(np.float32)


def rounded(a, dtype):
  return np.asarray(a if dtype is None else jnp.asarray(a, dtype), np.float64)


def truth(x, w, targets, weights, softcap=None, z=0.0, smoothing=0.0, dtype=None):
  """(nll, z, correct, spread), logp, and the gradients of the differentiated sum by x and w, all in float64."""
  x, w, weights = rounded(x, dtype), rounded(w, dtype), np.asarray(weights, np.float64)
  raw = x @ w
  logits = raw if softcap is None else softcap * np.tanh(raw / softcap)
  top = logits.max(-1, keepdims=True)
  lse = (top + np.log(np.exp(logits - top).sum(-1, keepdims=True)))[..., 0]
  logp = np.take_along_axis(logits, targets[..., None], -1)[..., 0] - lse
  spread = (weights * (lse - logits.mean(-1))).sum() if smoothing else 0.0
  sums = (weights * -logp).sum(), (weights * lse**2).sum(), (weights * (logits.argmax(-1) == targets)).sum(), spread
  dlogits = (weights * (1 + 2 * z * lse))[..., None] * np.exp(logits - lse[..., None])
  dlogits -= weights[..., None] * ((1 - smoothing) * (np.arange(w.shape[1]) == targets[..., None]) + smoothing / w.shape[1])
  if softcap is not None:
    dlogits *= 1 - (logits / softcap) ** 2
  return sums, logp, dlogits @ w.T, np.einsum('bld,blv->dv', x, dlogits)


def objective(x, w, targets, weights, softcap, z, smoothing, dtype):
  sums = weighted_nll(x, w, targets, weights, softcap=softcap, z_coefficient=z, smoothing=smoothing, dtype=dtype)
  return (1 - smoothing) * sums.nll + smoothing * sums.spread + z * sums.z, sums


def weighed_logp(x, w, targets, weights, softcap=None, temperature=1.0):
  logp = token_logp(x, w, targets, softcap=softcap, temperature=temperature)
  return (weights * logp).sum(), logp


step = jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True), static_argnums=(4, 5, 6, 7))


def close(got, expected, tolerance):
  expected = np.asarray(expected)
  np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * max(np.abs(expected).max(), 1e-3))
