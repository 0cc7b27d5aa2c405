"""Rotary positions (Su et al. 2021) and the scalings that stretch them over longer contexts. Angles are float32."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from model.config import Linear, Llama3, Rotary, YaRN


def frequencies(config: Rotary, head_size: int, local: bool = False) -> tuple[np.ndarray, float]:
  """f32[R/2] radians a position, and what cosine and sine are multiplied by (1 but for YaRN)."""
  turned = int(config.fraction * head_size)
  theta = config.local_theta if local and config.local_theta else config.theta
  plain = theta ** -(np.arange(0, turned, 2, dtype=np.float64) / turned)
  scaling = None if local and config.local_theta else config.scaling
  if isinstance(scaling, Linear):
    return (plain / scaling.factor).astype(np.float32), 1.0
  if isinstance(scaling, Llama3):
    return _llama3(plain, scaling).astype(np.float32), 1.0
  if isinstance(scaling, YaRN):
    return _yarn(plain, scaling, theta, turned).astype(np.float32), 0.1 * math.log(max(scaling.factor, 1.0)) + 1.0
  return plain.astype(np.float32), 1.0


def _llama3(plain: np.ndarray, scaling: Llama3) -> np.ndarray:
  turns = scaling.original * plain / (2 * math.pi)
  keep = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
  return plain * (keep + (1 - keep) / scaling.factor)


def _yarn(plain: np.ndarray, scaling: YaRN, theta: float, turned: int) -> np.ndarray:
  def dimension(turns: float) -> float:
    """The pair that turns so often within the original positions."""
    return turned * math.log(scaling.original / (turns * 2 * math.pi)) / (2 * math.log(theta))

  first = max(math.floor(dimension(scaling.fast)), 0)
  last = min(math.ceil(dimension(scaling.slow)), turned - 1)
  slowed = np.clip((np.arange(turned // 2) - first) / max(last - first, 1e-3), 0, 1)
  return plain * (1 - slowed + slowed / scaling.factor)


def turns(config: Rotary, head_size: int, positions_BL: jax.Array, local: bool = False,
          bound: int | None = None) -> tuple[jax.Array, jax.Array]:
  """Cosine and sine, f32[B, L, 1, R/2] each, shared by all layers of a role.

  With a `bound` above all positions, those of each position are looked up, else on a CPU those of each row. XLA's CPU
  backend would compute them inside the loops that use them, again for every head of every layer: a tenth of a training
  step, a sixtieth of a step that writes 16 rows. A look-up ends its loops, a barrier does not.
  """
  radians, gain = frequencies(config, head_size, local)
  known, places_BL = positions_BL, None
  if bound is not None:
    known, places_BL = jnp.arange(bound), positions_BL
  elif jax.default_backend() == 'cpu':
    known, places_BL = positions_BL.reshape(-1), jnp.arange(positions_BL.size).reshape(positions_BL.shape)
  angles = known.astype(jnp.float32)[..., None, None] * radians
  cos, sin = jnp.cos(angles) * gain, jnp.sin(angles) * gain
  return (cos, sin) if places_BL is None else (cos[places_BL], sin[places_BL])


def rotate(x_BLHK: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """x with its first R numbers a head turned in pairs (i, i + R/2), in the dtype of x."""
  half = cos.shape[-1]
  x = x_BLHK.astype(jnp.float32)
  first, second, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin, rest], -1)
  return turned.astype(x_BLHK.dtype)
