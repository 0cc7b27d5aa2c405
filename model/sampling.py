"""From logits to a token: how a next id is chosen.

Letters: B rows, V vocabulary.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from model.errors import demand


@dataclass(frozen=True)
class Sampling:
  """What is done to the logits, in this order, before one id is drawn from them.

  repetition_penalty  ids that were read or written lose: logits / penalty if positive, * penalty if not (Keskar 2019)
  temperature         logits / temperature; 0 takes the best id and ends here
  top_k               the k best stay; 0: all
  top_p               the fewest that hold p of the probability stay (Holtzman et al. 2020)
  min_p               those with at least min_p of the best one's probability stay (Nguyen et al. 2024)
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  repetition_penalty: float = 1.0

  def __post_init__(self):
    for field, low, high, why in (('temperature', 0, 1e6, 'it divides the logits'),
                                  ('top_k', 0, float('inf'), 'it is a number of ids'),
                                  ('top_p', 1e-9, 1, 'it is a share of the probability'),
                                  ('min_p', 0, 1, 'it is a share of the best probability'),
                                  ('repetition_penalty', 1e-6, 1e6, 'it divides the logits')):
      value = getattr(self, field)
      demand(low <= value <= high, f'Sampling.{field}', value, why, f'use a number from {low:g} to {high:g}')
    demand(self.temperature == 0 or self.temperature >= 1e-6, 'Sampling.temperature', self.temperature,
           'logits divided by so little are no numbers', 'use 0, which takes the best id, or at least 1e-06')


GREEDY = Sampling(temperature=0.0)


def choose(sampling: Sampling, logits_BV: jax.Array, read_BV: jax.Array | None, keys_B: jax.Array) -> jax.Array:
  """One id a row, i32[B], drawn with the row's own key. `read_BV`, for a penalty, says which ids a row has."""
  if sampling.repetition_penalty != 1.0 and read_BV is not None:
    logits_BV = jnp.where(read_BV, penalise(logits_BV, sampling.repetition_penalty), logits_BV)
  if sampling.temperature == 0.0:
    return best(logits_BV)
  kept_BV = keep(sampling, logits_BV / sampling.temperature)
  return best(kept_BV + jax.vmap(lambda key: jax.random.gumbel(key, kept_BV.shape[1:], kept_BV.dtype))(keys_B))


def best(logits_BV: jax.Array) -> jax.Array:
  """The likeliest id of each row, the first of those that tie, i32[B]; 0 where a logit is NaN.

  jnp.argmax gives the same where there is no NaN, and takes a CPU six times as long: XLA does not vectorise it.
  """
  vocab = logits_BV.shape[-1]
  is_best_BV = logits_BV == logits_BV.max(-1, keepdims=True)
  return jnp.where(is_best_BV, jnp.arange(vocab, dtype=jnp.int32), vocab).min(-1) % vocab


def penalise(logits: jax.Array, penalty: float) -> jax.Array:
  """The logits made less likely."""
  return jnp.where(logits > 0, logits / penalty, logits * penalty)


def keep(sampling: Sampling, logits_BV: jax.Array) -> jax.Array:
  """The logits with -inf for ids that top-k, top-p and min-p leave out. Ids that tie with the last kept one stay."""
  if 0 < sampling.top_k < logits_BV.shape[-1]:
    logits_BV = _at_least(logits_BV, jax.lax.top_k(logits_BV, sampling.top_k)[0][:, -1:])
  if sampling.top_p < 1.0:
    logits_BV = _at_least(logits_BV, _nucleus(logits_BV, sampling.top_p))
  if sampling.min_p > 0.0:
    logits_BV = _at_least(logits_BV, logits_BV.max(-1, keepdims=True) + jnp.log(sampling.min_p))
  return logits_BV


def _at_least(logits_BV: jax.Array, floor_B1: jax.Array) -> jax.Array:
  return jnp.where(logits_BV >= floor_B1, logits_BV, -jnp.inf)


def _nucleus(logits_BV: jax.Array, share: float) -> jax.Array:
  """The least logit of the fewest best ids whose probabilities reach the share, [B, 1]."""
  best_BV = -jnp.sort(-logits_BV, -1)
  probability_BV = jax.nn.softmax(best_BV)
  before_BV = jnp.cumsum(probability_BV, -1) - probability_BV
  return jnp.min(jnp.where(before_BV < share, best_BV, jnp.inf), -1, keepdims=True)
