"""Text from a model in fewer passes: several ids are proposed at once, and one pass judges them all (`model.accept`).

What is written has exactly the distribution that `model.generate` gives it, whatever proposes: a drafter costs or saves
time and nothing else. A row's ids depend on its prompt, its number and the key alone. Rows keep different counts, so each
has its own length; caches hold more than was kept, and what lies beyond a length is overwritten before it is read. As in
`model.generate`, prompts that are alike are read once, and those that wait take the places of rows that have ended.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from model.decoder import Model, Params, check_length
from model.errors import ConfigError, demand
from model.generate import Ends, Generated, Stops, Way, lay_out, made, stages
from model.membership import Answers
from model.prompts import SHORTEST, Lot, answered, asked_of, everywhere, rounded
from model.rounds import Draft, Drafter, Progress, Round, go_on, read
from model.sampling import Sampling


class Speculated(NamedTuple):
  """What was written, and in how many passes of the model over each row: one for the prompt and the first id, then rounds."""

  written: Generated
  passes: list[int]


def speculate(model: Model, params: Params, prompts: list[list[int]], *, drafter: Drafter, max_new: int, sampling: Sampling,
              key: jax.Array, eos: int | None = None, stop: Stops = (), limit: int | None = None,
              at_once: int | None = None) -> Speculated:
  """What `generate` might write, in fewer passes of the model where the drafter guesses well. Arguments are as there.

  With `Lookup`, or at temperature 0, these are the ids that `generate` writes with the same key, up to rounding: a pass over
  several positions may add up in another order. With `Draft` above 0 they are other draws of the same distribution.

  With `Lookup` how many passes a row takes depends on the rows beside it (model.ahead), and nothing else does.

  Raises: DataError if a prompt is empty; ConfigError if prompt and answer have more positions than the model or the draft,
  or if these two differ in vocabulary.
  """
  asked, answers = asked_of(model, prompts, max_new, key), Answers.begin(len(prompts), at_once)
  if isinstance(drafter, Draft):
    _check(drafter.model, model, int(asked.lengths_N.max()) + max_new)
    drafter = replace(drafter, params=lay_out(drafter.model, drafter.params))
  rest = Way(model, sampling), lay_out(model, params), drafter, Ends.of(model, eos, stop, limit)
  sizes = stages(SHORTEST, rounded(model, asked.tokens_NL.shape[1] + max_new))
  begin = partial(_begin, *rest, max_new=max_new, longest=sizes[-1])
  told = answered(asked, answers, sizes, begin, partial(_run, *rest), spare=drafter.ahead)
  return Speculated(made(told, asked.lengths_N), told.passes_C.tolist())


def _check(draft: Model, model: Model, length: int) -> None:
  if draft.config.vocab != model.config.vocab:
    raise ConfigError('speculate.vocabulary', f'a draft of {draft.config.vocab} ids for a model of {model.config.vocab}',
                      'an id must mean the same to both', 'draft with a model of the same tokenizer')
  demand(draft.config.causal, 'Decoder.causal', draft.config.causal, 'a draft goes on with a text', 'draft with a causal model')
  check_length(draft.config, length)


@partial(jax.jit, static_argnames=('way', 'slots', 'longest'))
def _begin(way: Way, params: Params, drafter: Drafter, ends: Ends, lot: Lot, slots: int, max_new, longest: int) -> Progress:
  return read(Round(way, params, drafter, ends), lot, slots, max_new, longest)


@partial(jax.jit, static_argnames='way', donate_argnames='now')
def _run(way: Way, params: Params, drafter: Drafter, ends: Ends, now: Progress, few) -> tuple[Progress, tuple[jax.Array, ...]]:
  """Goes on until no more than a few rows do, or one that does has filled its part of the cache."""
  size = now.cache.slots - drafter.ahead    # a round writes so far, whatever of it is kept

  def going(now: Progress):
    return (now.going_B.sum() > few) & (jnp.where(now.going_B, now.lengths_B, 0).max() <= size)

  now = go_on(Round(way, params, drafter, ends), going, now)
  return now, everywhere(now.ids_BS, now.logps_BS, now.steps_B, now.reason_B, now.lengths_B - 1, now.passes_B)
