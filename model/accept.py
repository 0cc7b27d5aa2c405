"""Speculative sampling: which proposed ids are accepted, so that the text has the model's own distribution.

Letters: B rows, A proposals, C = A + 1 candidates, V vocabulary, N = B * C.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from model.sampling import Sampling, choose, keep, penalise

CHANCE, REST = 1, 2                 # folded into a position's key: for accepting an id, for drawing another in its stead


class Proposed(NamedTuple):
  """Ids that may come next, -1 for none, and the probabilities that they were drawn with; None where no chance was in it."""

  ids_BA: jax.Array                   # i32
  q_BAV: jax.Array | None             # f32


class Judged(NamedTuple):
  """Candidates, of which the first `counts_B` are kept: the accepted proposals, and one more that the model drew itself."""

  ids_BC: jax.Array                   # i32
  counts_B: jax.Array                 # i32, from 1 to C


def judge(sampling: Sampling, logits_BCV: jax.Array, read_BV: jax.Array | None, proposed: Proposed,
          keys_BC: jax.Array) -> Judged:
  """What is kept of the proposals, from the logits before and after each (Leviathan et al. 2023, Chen et al. 2023).

  A proposal x is accepted with probability min(1, p(x) / q(x)); in place of the first refused one comes a draw of
  max(0, p - q), scaled up to 1, and after all of them a draw of p. A proposal without chance in it has q(x) = 1, and one
  draw of p does both: it is x with probability p(x), else one of the rest. So those rows are the ones that one id after
  another would have given with the same keys. `read_BV`, for a penalty, says which ids a row had before the proposals.
  """
  read_BCV = None if read_BV is None else _reads(read_BV, proposed.ids_BA)
  if proposed.q_BAV is None:
    ids_BC = _each(choose, sampling, logits_BCV, read_BCV, keys_BC)
    return Judged(ids_BC, leading(ids_BC[:, :-1] == proposed.ids_BA) + 1)
  p_BCV = _each(probabilities, sampling, logits_BCV, read_BCV)
  accepted_B = leading(_accepted(p_BCV[:, :-1], proposed.q_BAV, proposed.ids_BA, keys_BC[:, :-1]))
  q_BCV = jnp.pad(proposed.q_BAV, ((0, 0), (0, 1), (0, 0)))
  p_BV, q_BV = (jnp.take_along_axis(x, accepted_B[:, None, None], 1)[:, 0] for x in (p_BCV, q_BCV))
  keys_B = jnp.take_along_axis(keys_BC, accepted_B[:, None], 1)[:, 0]
  id_B = jax.vmap(_rest)(p_BV, q_BV, keys_B)
  last_BC = jnp.arange(keys_BC.shape[1]) == accepted_B[:, None]
  return Judged(jnp.where(last_BC, id_B[:, None], jnp.pad(proposed.ids_BA, ((0, 0), (0, 1)))), accepted_B + 1)


def probabilities(sampling: Sampling, logits_NV: jax.Array, read_NV: jax.Array | None) -> jax.Array:
  """The probabilities that `model.sampling.choose` draws with at a temperature above 0, f32[N, V]."""
  if read_NV is not None:
    logits_NV = jnp.where(read_NV, penalise(logits_NV, sampling.repetition_penalty), logits_NV)
  return jax.nn.softmax(keep(sampling, logits_NV / sampling.temperature))


def leading(true_BN: jax.Array) -> jax.Array:
  """How many of each row are true before the first that is not, i32[B]."""
  return jnp.cumprod(true_BN.astype(jnp.int32), 1).sum(1)


def _accepted(p_BAV: jax.Array, q_BAV: jax.Array, ids_BA: jax.Array, keys_BA: jax.Array) -> jax.Array:
  p_BA, q_BA = (jnp.take_along_axis(x, ids_BA[..., None], 2)[..., 0] for x in (p_BAV, q_BAV))
  chance_BA = jax.vmap(jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, CHANCE))))(keys_BA)
  return chance_BA * q_BA < p_BA


def _rest(p_V: jax.Array, q_V: jax.Array, key: jax.Array) -> jax.Array:
  """A draw from max(0, p - q), normalised; where rounding left nothing of that, p and q are the same, and it is a draw of p."""
  rest_V = jnp.maximum(p_V - q_V, 0)
  return jax.random.categorical(jax.random.fold_in(key, REST), jnp.log(jnp.where(rest_V.sum() > 0, rest_V, p_V)))


def _reads(read_BV: jax.Array, ids_BA: jax.Array) -> jax.Array:
  """Which ids a row has before each candidate, bool[B, C, V]: those of before, and the proposals up to there."""
  here_BAV = jax.nn.one_hot(ids_BA, read_BV.shape[1], dtype=bool)
  return jax.lax.cummax(jnp.concatenate([read_BV[:, None], here_BAV], 1).astype(jnp.int8), axis=1) > 0


def _each(function: Callable[..., jax.Array], sampling: Sampling, *operands_BC: jax.Array | None) -> jax.Array:
  """The function of rows, of each candidate of each row."""
  shape = next(x.shape[:2] for x in operands_BC if x is not None)
  made = function(sampling, *(None if x is None else x.reshape(-1, *x.shape[2:]) for x in operands_BC))
  return made.reshape(*shape, *made.shape[1:])
