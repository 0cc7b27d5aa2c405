"""Known answers of the filters, and the frequencies of what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.errors import ConfigError
from model.sampling import GREEDY, Sampling, choose, keep

LOGITS = jnp.log(jnp.array([[0.05, 0.4, 0.1, 0.3, 0.15]]))


def kept(**fields) -> list[int]:
  return np.flatnonzero(np.isfinite(keep(Sampling(**fields), LOGITS)[0])).tolist()


@pytest.mark.parametrize('fields, ids', [
  ({}, [0, 1, 2, 3, 4]),
  ({'top_k': 1}, [1]),
  ({'top_k': 3}, [1, 3, 4]),
  ({'top_k': 9}, [0, 1, 2, 3, 4]),
  ({'top_p': 0.39}, [1]),
  ({'top_p': 0.41}, [1, 3]),
  ({'top_p': 0.69}, [1, 3]),
  ({'top_p': 0.71}, [1, 3, 4]),
  ({'min_p': 0.3}, [1, 3, 4]),           # 0.3 * 0.4 = 0.12
  ({'min_p': 1.0}, [1]),
  ({'top_k': 4, 'top_p': 0.89}, [1, 3, 4]),   # the best three hold 0.85 of the 0.95 that top-k leaves: 0.895
  ({'top_k': 4, 'top_p': 0.9}, [1, 2, 3, 4]),
])
def test_what_is_kept(fields, ids):
  assert kept(**fields) == ids


def test_draws_have_the_frequencies_of_what_is_kept():
  count = 4_000
  sampling = Sampling(temperature=0.5, top_k=3)
  ids = np.asarray(choose(sampling, jnp.repeat(LOGITS, count, 0), None, jax.random.split(jax.random.key(0), count)))
  expected = np.array([0, 0.4, 0, 0.3, 0.15]) ** 2
  expected /= expected.sum()
  error = np.sqrt(expected * (1 - expected) / count)
  assert (np.abs(np.bincount(ids, minlength=5) / count - expected) <= 4 * error).all()


def test_temperature_zero_takes_the_best():
  assert choose(GREEDY, LOGITS, None, jax.random.split(jax.random.key(0), 1)).tolist() == [1]


def test_draws_and_ties_are_those_of_jax():
  logits = jnp.round(3 * jax.random.normal(jax.random.key(3), (50, 40)))
  keys = jax.random.split(jax.random.key(4), 50)
  np.testing.assert_array_equal(choose(GREEDY, logits, None, keys), logits.argmax(-1))
  np.testing.assert_array_equal(choose(Sampling(), logits, None, keys), jax.vmap(jax.random.categorical)(keys, logits))


def test_a_penalty_lowers_what_was_read_on_both_sides_of_zero():
  logits = jnp.array([[2.0, 1.5, -1.0], [-0.1, -0.3, -0.2]])
  read = jnp.array([[True, False, True], [True, False, False]])
  picked = choose(Sampling(temperature=0.0, repetition_penalty=2.5), logits, read, jax.random.split(jax.random.key(0), 2))
  assert picked.tolist() == [1, 2]


@pytest.mark.parametrize('fields', [{'temperature': -1.0}, {'top_p': 0.0}, {'top_p': 1.5}, {'min_p': -0.1}, {'top_k': -1},
                                    {'temperature': float('nan')}, {'temperature': 1e-40}, {'temperature': float('inf')},
                                    {'repetition_penalty': 0.0}])
def test_settings_out_of_range_are_refused(fields):
  with pytest.raises(ConfigError, match='Sampling'):
    Sampling(**fields)
