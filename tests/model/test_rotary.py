"""Rotary positions: what they promise, and the scalings against their papers' formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import Linear, Llama3, Rotary, YaRN
from model.rotary import frequencies, rotate, turns


def score(config: Rotary, query: int, key: int) -> float:
  q, k = (jax.random.normal(jax.random.key(i), (1, 1, 1, 16)) for i in range(2))
  turned = [rotate(x, *turns(config, 16, jnp.array([[place]]))) for x, place in ((q, query), (k, key))]
  return float((turned[0] * turned[1]).sum())


@pytest.mark.parametrize('config', [Rotary(), Rotary(fraction=0.5), Rotary(scaling=Llama3(8.0, original=64)),
                                    Rotary(scaling=YaRN(4.0, original=64))])
def test_scores_depend_on_the_distance_alone(config):
  assert score(config, 9, 4) == pytest.approx(score(config, 105, 100), abs=1e-3)
  assert score(config, 9, 4) != pytest.approx(score(config, 9, 5), abs=1e-3)


def test_rotation_keeps_lengths_and_what_is_beyond_the_fraction():
  x = jax.random.normal(jax.random.key(0), (2, 5, 3, 16))
  y = rotate(x, *turns(Rotary(fraction=0.25), 16, jnp.tile(jnp.arange(5), (2, 1))))
  np.testing.assert_array_equal(x[..., 4:], y[..., 4:])
  np.testing.assert_allclose(jnp.linalg.norm(x, axis=-1), jnp.linalg.norm(y, axis=-1), rtol=1e-5)
  np.testing.assert_allclose(y[0, 3, 0, 0], x[0, 3, 0, 0] * math.cos(3) - x[0, 3, 0, 2] * math.sin(3), rtol=1e-5)


def test_plain_and_linear_frequencies():
  plain, gain = frequencies(Rotary(10_000.0), 8)
  np.testing.assert_allclose(plain, [1, 0.1, 0.01, 0.001], rtol=1e-6)
  np.testing.assert_allclose(frequencies(Rotary(scaling=Linear(4.0)), 8)[0], plain / 4)
  assert gain == 1.0


def test_llama3_keeps_fast_frequencies_and_slows_the_slow_ones():
  """Wavelengths below original/high are kept, above original/low slowed by the factor (Llama 3.1's reference)."""
  scaling = Llama3(8.0, low=1.0, high=4.0, original=8192)
  plain, scaled = frequencies(Rotary(5e5), 128)[0], frequencies(Rotary(5e5, scaling=scaling), 128)[0]
  wavelength = 2 * np.pi / plain
  np.testing.assert_allclose(scaled[wavelength < 2048], plain[wavelength < 2048])
  np.testing.assert_allclose(scaled[wavelength > 8192], plain[wavelength > 8192] / 8, rtol=1e-6)
  middle = (wavelength > 2048) & (wavelength < 8192)
  smooth = (8192 / wavelength[middle] - 1) / 3
  np.testing.assert_allclose(scaled[middle], (1 - smooth) * plain[middle] / 8 + smooth * plain[middle], rtol=1e-5)
  assert middle.any()


def test_yarn_ramps_between_dimensions_and_warms_the_scores():
  """The dimension that turns r times in the original context is D ln(original / (2 pi r)) / (2 ln theta)."""
  plain, (scaled, gain) = frequencies(Rotary(), 128)[0], frequencies(Rotary(scaling=YaRN(4.0, original=4096)), 128)
  low = math.floor(128 * math.log(4096 / (32 * 2 * math.pi)) / (2 * math.log(10_000)))
  high = math.ceil(128 * math.log(4096 / (2 * math.pi)) / (2 * math.log(10_000)))
  np.testing.assert_allclose(scaled[:low + 1], plain[:low + 1])
  np.testing.assert_allclose(scaled[high:], plain[high:] / 4, rtol=1e-6)
  assert 0 < low < high < 64 and gain == pytest.approx(0.1 * math.log(4) + 1)
  half = (low + high) // 2
  ramp = (half - low) / (high - low)
  assert scaled[half] == pytest.approx(plain[half] * (1 - ramp + ramp / 4), rel=1e-5)


def test_local_layers_have_their_own_base_unscaled():
  config = Rotary(1e6, scaling=Linear(8.0), local_theta=1e4)
  np.testing.assert_allclose(frequencies(config, 8, local=True)[0], frequencies(Rotary(1e4), 8)[0])
  np.testing.assert_allclose(frequencies(config, 8)[0], frequencies(Rotary(1e6), 8)[0] / 8)
