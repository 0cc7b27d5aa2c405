"""Log-probs of answers under a model and under its reference: what DPO and KTO compare, and judges weigh options by.

    log p(answer | prompt) = sum over the answer's tokens of log p(token | everything before it), nats

The reference is the policy before it learnt. Its log-probs come from a column of the batch where one was stored
(`align.reference`). Without that column a model with adapters is its own reference, adapters off: so adapters must have begun
on the reference. No gradient reaches it, and the adapters' dropout does not either.

Letters: B pairs, P the two sides, R rows, L positions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from align.pairwise import pairs, rows
from model.adapter_tree import adapted, detach
from model.decoder import Model
from model.errors import ConfigError
from train.objectives import shift
from train.types import Batch, Params

COLUMNS = ('tokens', 'segments', 'mask')


class AnswerLogps(NamedTuple):
  """Of each row."""

  logp_R: jax.Array                  # f32, nats: sums over the tokens of answers
  tokens_R: jax.Array                # f32: how many tokens the sums are over
  aux: dict[str, jax.Array]          # f32[R] each: the router's penalties


def answer_logps(model: Model, params: Params, batch: Batch) -> AnswerLogps:
  """The log-probs of the answers in rows of columns [R, L]; prompts and padding are in no sum."""
  row = shift({name: batch[name] for name in COLUMNS})
  hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
  logp_RL = model.logp(params, hidden.x_BLD, row.targets_BL)
  return AnswerLogps(jnp.where(row.weights_BL > 0, logp_RL, 0.0).sum(1), row.weights_BL.sum(1), hidden.aux)


class PairLogps(NamedTuple):
  """Of both sides of each pair, the chosen one first."""

  logp_BP: jax.Array                 # f32, nats: sums over the tokens of answers
  tokens_BP: jax.Array               # f32: how many tokens the sums are over
  aux: dict[str, jax.Array]          # f32[2B] each: the router's penalties


def pair_logps(model: Model, params: Params, batch: Batch) -> PairLogps:
  """The log-probs of both sides' answers, from columns [B, 2, L], in one forward pass."""
  found = answer_logps(model, params, {name: rows(batch[name]) for name in COLUMNS})
  return PairLogps(pairs(found.logp_R), pairs(found.tokens_R), found.aux)


def reference_logps(model: Model, params: Params, batch: Batch) -> jax.Array:
  """The reference's log-probs of both sides, f32[B, 2]. Raises: ConfigError as `under_reference` does."""
  return under_reference(params, batch.get('reference'), lambda base: pair_logps(model, base, batch).logp_BP)


def under_reference(params: Params, column: jax.Array | None, logps: Callable[[Params], jax.Array]) -> jax.Array:
  """The stored column, or else `logps` of the parameters without their adapters; either way without a gradient.

  Raises: ConfigError `dpo.no-reference` if there is no such column and the model has no adapters that could be taken off.
  """
  if column is not None:
    return jax.lax.stop_gradient(column)
  if not adapted(params):
    raise ConfigError('dpo.no-reference', 'batches of pairs without a reference', 'the policy is compared with what it was',
                      'use rows of Scored(pairs, by=the parent), or adapters over the parent: edits=(LoRA(),)')
  return jax.lax.stop_gradient(logps(detach(params)))
