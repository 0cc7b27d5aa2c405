"""Text from a model in fewer passes: several ids are proposed at once, and one pass judges them all (`model.accept`).

What is written has exactly the distribution that `model.generate` gives it, whatever proposes: a drafter costs or saves
time and nothing else. A row's ids depend on its prompt, its number and the key alone. Rows keep different counts, so each
has its own length; caches hold more than was kept, and what lies beyond a length is overwritten before it is read. As in
`model.generate`, a compiled loop is left only for another size: for more room, or for fewer rows where half of them ended.

Letters: B rows, L positions of the prompts, S places for prompts and answers.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model.cache import grow
from model.decoder import Model, Params, check_length
from model.errors import ConfigError, demand
from model.generate import Ends, Generated, Stops, Way, lay_out, prepared, rounded, stages
from model.membership import GOING, enough, staying
from model.rounds import Draft, Drafter, Progress, Round, go_on, read
from model.sampling import Sampling
from model.sharding import pin


class Speculated(NamedTuple):
  """What was written, and in how many passes of the model over each row: one for the prompt and the first id, then rounds."""

  written: Generated
  passes: list[int]


class Told(NamedTuple):
  """What is known of each row outside of the loop."""

  ids_BS: np.ndarray                  # i32: prompts and answers
  logps_BS: np.ndarray                # f32
  lengths_B: np.ndarray               # i32
  reason_B: np.ndarray                # i32
  passes_B: np.ndarray                # i32


def speculate(model: Model, params: Params, prompts: list[list[int]], *, drafter: Drafter, max_new: int, sampling: Sampling,
              key: jax.Array, eos: int | None = None, stop: Stops = (), limit: int | None = None) -> Speculated:
  """What `generate` might write, in fewer passes of the model where the drafter guesses well. Arguments are as there.

  With `Lookup`, or at temperature 0, these are the ids that `generate` writes with the same key, up to rounding: a pass over
  several positions may add up in another order. With `Draft` above 0 they are other draws of the same distribution.

  Raises: DataError if a prompt is empty; ConfigError if prompt and answer have more positions than the model or the draft,
  or if these two differ in vocabulary.
  """
  tokens_BL, lengths_B = prepared(model, prompts, max_new)
  if isinstance(drafter, Draft):
    _check(drafter.model, model, int(lengths_B.max()) + max_new)
    drafter = replace(drafter, params=lay_out(drafter.model, drafter.params))
  way, rest = Way(model, sampling), (lay_out(model, params), drafter, Ends.of(model, eos, stop, limit))
  sizes = stages(tokens_BL.shape[1], rounded(model, tokens_BL.shape[1] + max_new))
  now = _begin(way, *rest, tokens_BL, lengths_B, key, max_new, slots=sizes[-1])
  told, place_B = None, np.arange(len(prompts))
  kept_B, room = place_B, sizes[0]
  while True:
    now = _run(way, *rest, _moved(now, kept_B, slots=room + drafter.ahead))
    part = _told(now)
    told = _noted(told, part, place_B)
    going_B = (part.reason_B == GOING) & (part.lengths_B - lengths_B[place_B] < max_new)
    if not np.any(going_B):
      return _made(told, lengths_B)
    kept_B = staying(going_B)
    place_B, longest = place_B[kept_B], part.lengths_B[going_B].max()
    room = max(room, next(size for size in sizes if size >= longest))


def _check(draft: Model, model: Model, length: int) -> None:
  if draft.config.vocab != model.config.vocab:
    raise ConfigError('speculate.vocabulary', f'a draft of {draft.config.vocab} ids for a model of {model.config.vocab}',
                      'an id must mean the same to both', 'draft with a model of the same tokenizer')
  demand(draft.config.causal, 'Decoder.causal', draft.config.causal, 'a draft goes on with a text', 'draft with a causal model')
  check_length(draft.config, length)


def _told(now: Progress) -> Told:
  return Told(*jax.device_get((now.ids_BS, now.logps_BS, now.lengths_B, now.reason_B, now.passes_B)))


def _noted(told: Told | None, part: Told, place_B: np.ndarray) -> Told:
  """What was told of all rows, with what is now of those that are left."""
  if told is None:
    return Told(*(np.array(x) for x in part))
  for whole, rows in zip(told, part):
    whole[place_B] = rows
  return told


def _made(told: Told, begins_B: np.ndarray) -> Speculated:
  spans = [slice(begin, end) for begin, end in zip(begins_B, told.lengths_B)]
  written = Generated([row[span] for row, span in zip(told.ids_BS, spans)],
                      [row[span] for row, span in zip(told.logps_BS, spans)],
                      [('length', 'eos', 'stop')[reason] for reason in told.reason_B])
  return Speculated(written, told.passes_B.tolist())


@partial(jax.jit, static_argnames=('way', 'slots'))
def _begin(way: Way, params: Params, drafter: Drafter, ends: Ends, tokens_BL, lengths_B, key, max_new, slots: int) -> Progress:
  return read(Round(way, params, drafter, ends), tokens_BL, lengths_B, key, max_new, slots)


@partial(jax.jit, static_argnames='way', donate_argnames='now')
def _run(way: Way, params: Params, drafter: Drafter, ends: Ends, now: Progress) -> Progress:
  """Goes on until all is written, or a row fills the cache, or enough rows have ended for a smaller batch.

  What is told lies on every device then, so that each process of a job can read it.
  """
  few, size = enough(len(now.keys_B)), now.cache.slots - drafter.ahead    # a round writes so far, whatever of it is kept

  def going(now: Progress):
    return (now.going_B.sum() > few) & (jnp.where(now.going_B, now.lengths_B, 0).max() <= size)

  now = go_on(Round(way, params, drafter, ends), going, now)
  return replace(now, ids_BS=pin(now.ids_BS, None, None), logps_BS=pin(now.logps_BS, None, None),
                 lengths_B=pin(now.lengths_B, None), reason_B=pin(now.reason_B, None), passes_B=pin(now.passes_B, None))


@partial(jax.jit, static_argnames='slots')
def _moved(now: Progress, kept_B: jax.Array, slots: int) -> Progress:
  """These rows, with so much room in their caches."""
  kept = jax.tree.map(lambda x: x[kept_B] if x.ndim else x, now)
  return replace(kept, cache=grow(kept.cache, slots), drafted=None if kept.drafted is None else grow(kept.drafted, slots))
