"""Text from a model: prompts are read together, then one token a row at a time in a compiled loop.

Prompts that are alike are read once, and those that wait take the places of rows that have ended (model.prompts). A row's
tokens depend on its prompt, its number and the key alone: not on the other rows, nor on the rounding of lengths. With a key
for each row, it does not depend on its number either.

Letters: B rows of the batch, R rows read into it, U prompts that differ, L positions of the prompts, T of the answers,
V vocabulary.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count, repeat
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from model.cache import Cache, grow, rows
from model.decoder import Model, Params, laid_out
from model.errors import demand
from model.membership import GOING, Answers, Told
from model.prompts import SHORTEST, Lot, answered, asked_of, everywhere, round_up, rounded
from model.sampling import Sampling, choose
from model.turned import turned

Reason = Literal['eos', 'stop', 'length']
Stops = tuple[tuple[int, ...], ...]

MANY_STEPS = 64   # which win more by matrices that lie turned (model.turned) than it takes to turn them
WHOLE = 256       # caches up to here are not worth a program for each size
EOS, STOP, LENGTH = 1, 2, 3           # why a row ended; model.membership.GOING: it did not


REASONS: dict[int, Reason] = {EOS: 'eos', STOP: 'stop', LENGTH: 'length'}


class Generated(NamedTuple):
  """What each row wrote. An end-of-text id or stop sequence ends `tokens`, for it was sampled like the rest."""

  tokens: list[np.ndarray]            # i32 each
  logps: list[np.ndarray]             # f32 each: log p(token | all before) at the sampling's temperature, before all else
  reasons: list[Reason]


class Way(NamedTuple):
  """What is fixed while tracing."""

  model: Model
  sampling: Sampling


class Ends(NamedTuple):
  """What ends a row, and the vocabulary: arrays, so that other ones need no other program."""

  eos: np.int32                       # -1 for none
  stop_NW: np.ndarray                 # i32, N sequences of at most W ids, with -1 before shorter ones
  limit: np.int32                     # ids from here on are never sampled

  @classmethod
  def of(cls, model: Model, eos: int | None, stop: Stops, limit: int | None) -> 'Ends':
    demand(all(stop), 'stop', stop, 'an empty sequence would end everything', 'leave it out')
    demand(limit is None or 0 < limit <= model.config.vocab, 'limit', limit,
           f'it is how many of {model.config.vocab} ids may be written', 'give the size of the tokenizer')
    width = max((len(sequence) for sequence in stop), default=1)
    padded = [[-1] * (width - len(sequence)) + list(sequence) for sequence in stop]
    return cls(np.int32(-1 if eos is None else eos), np.array(padded, np.int32).reshape(-1, width),
               np.int32(model.config.vocab if limit is None else limit))


@struct.dataclass
class Progress:
  """The state of the loop."""

  cache: Cache
  token_B: jax.Array                  # i32: the last id of each row, written but not yet read
  tokens_BT: jax.Array                # i32
  logps_BT: jax.Array                 # f32
  reason_B: jax.Array                 # i32: GOING, EOS, STOP or LENGTH
  counts_B: jax.Array                 # i32: how many ids each row has written
  read_BV: jax.Array | None           # bool: which ids each row has, where a penalty asks for it
  keys_B: jax.Array
  max_new: jax.Array                  # i32[]

  @property
  def going_B(self) -> jax.Array:
    return self.reason_B == GOING


def generate(model: Model, params: Params, prompts: list[list[int]], *, max_new: int, sampling: Sampling, key: jax.Array,
             eos: int | None = None, stop: Stops = (), limit: int | None = None, at_once: int | None = None) -> Generated:
  """What the model writes after each prompt: at most `max_new` ids, fewer where `eos` or a stop sequence ends it.

  Ids from `limit` on are never written: a vocabulary may be padded beyond its tokenizer. `key` is one for all, or an
  array of one for each prompt, which then gets what it would get alone with that key. Of many prompts `at_once` are written
  at a time, and the others wait in their order: that changes memory and time alone.

  Raises: DataError if a prompt is empty or has an unknown id; ConfigError if prompt and answer have more positions than the
  model, and for what else cannot be meant.
  """
  asked, answers = asked_of(model, prompts, max_new, key), Answers.begin(len(prompts), at_once)
  sizes = stages(SHORTEST, rounded(model, asked.tokens_NL.shape[1] + max_new))
  way, ends = Way(model, sampling), Ends.of(model, eos, stop, limit)
  ready = _laid(model, params, max_new * -(-answers.count // len(answers.place_C)), len(answers.place_C))
  read = partial(_begin, way, ready, ends, max_new=max_new, room=round_up(max_new))
  return made(answered(asked, answers, sizes, read, partial(_run, way, ready, ends)), repeat(0))


def stream(model: Model, params: Params, prompt: list[int], *, max_new: int, sampling: Sampling, key: jax.Array,
           eos: int | None = None, stop: Stops = (), limit: int | None = None) -> Iterator[int]:
  """The same ids as `generate` gives for one prompt, each as soon as it is there. The cache grows by doubling."""
  lot = asked_of(model, [prompt], max_new, key).lot(np.zeros(1, np.int32))
  way, ends = Way(model, sampling), Ends.of(model, eos, stop, limit)
  ready = _laid(model, params, max_new, 1)
  now = _begin(way, ready, ends, lot, lot.length, max_new, room=round_up(max_new))
  for length in count(len(prompt) + 1):
    token_B, reason_B = jax.device_get((now.token_B, now.reason_B))
    yield int(token_B[0])
    if reason_B[0] != GOING:
      return
    if length > now.cache.slots:
      now = replace(now, cache=grow(now.cache, 2 * now.cache.slots))
    now = _advance(way, ready, ends, now)


def lay_out(model: Model, params: Params, alone: bool = False) -> Params:
  """The parameters as `generate` and `stream` read them fastest: for several rows at a time, or for one alone.

  Unless they are given its result they do it each time, or the quicker half of it where few steps follow: who asks often of
  the same parameters does it once, and holds a second copy of them.
  """
  return _turned(model.config, params, alone)


def _laid(model: Model, params: Params, steps: int, rows: int) -> Params:
  return lay_out(model, params, rows == 1) if steps >= MANY_STEPS else _plain(model.config, params)


def made(told: Told, begins: Iterable[int]) -> Generated:
  """What was written from these places on, as long as it is."""
  spans = [slice(begin, begin + count) for begin, count in zip(begins, told.counts_C)]
  tokens, logps = ([row[span] for row, span in zip(rows, spans)] for rows in (told.tokens_CT, told.logps_CT))
  return Generated(tokens, logps, [REASONS[int(reason)] for reason in told.reason_C])


def _steps(way: Way, params: Params, ends: Ends, now: Progress, few) -> tuple[Progress, tuple[jax.Array, ...]]:
  """Goes on until no more than a few rows do, or one that does has filled its part of the cache."""
  size = now.cache.slots

  def going(now: Progress):
    return (now.going_B.sum() > few) & (jnp.where(now.going_B, now.cache.lengths_B, 0).max() < size)

  now = jax.lax.while_loop(going, lambda now: _write(way, params, ends, now), now)
  return now, everywhere(now.tokens_BT, now.logps_BT, now.counts_B, now.reason_B, now.cache.lengths_B, now.counts_B)


def stages(first: int, last: int) -> list[int]:
  """The sizes that a cache grows through: each step reads all of it, so a short text should not pay for a long one's."""
  sizes = [last]
  while sizes[0] // 4 >= max(first, WHOLE):
    sizes.insert(0, sizes[0] // 4)
  return sizes


def _read(way: Way, params: Params, ends: Ends, lot: Lot, slots: int, max_new, room: int) -> Progress:
  """The prompts read and the first ids chosen. `slots` positions can be kept, and `room` ids be written."""
  x_B1D, cache = prefill(way.model, params, lot)
  none_B, ids_BT = jnp.zeros(len(x_B1D), jnp.int32), jnp.zeros((len(x_B1D), room), jnp.int32)
  now = Progress(grow(cache, slots), none_B, ids_BT, ids_BT.astype(jnp.float32), beginning(lot), none_B, had(way, lot),
                 numbered(lot.key, lot.number_B), jnp.asarray(max_new, jnp.int32))
  return _choose(way, params, ends, now, x_B1D)


def prefill(model: Model, params: Params, lot: Lot) -> tuple[jax.Array, Cache]:
  """What the last id of each row's prompt became, [B, 1, D], and the cache of all rows: each takes what it has of the lot."""
  unique, length = lot.tokens_UL.shape
  segments_UL = (jnp.arange(length) < lot.lengths_U[:, None]).astype(jnp.int32)
  hidden = model.hidden(params, lot.tokens_UL, segments_UL, model.cache(unique, length))
  assert hidden.cache is not None
  x_U1D = jnp.take_along_axis(hidden.x_BLD, (lot.lengths_U - 1)[:, None, None], axis=1)
  return x_U1D[lot.which_B], hidden.cache if unique == len(lot.which_B) else rows(hidden.cache, jnp.asarray(lot.which_B))


def beginning(lot: Lot) -> jax.Array:
  """The reasons before anything is written, i32[B]: a row without a prompt has ended."""
  return jnp.where(lot.which_B < 0, LENGTH, GOING)


def had(way: Way, lot: Lot) -> jax.Array | None:
  """Which ids the prompt of each row has, bool[B, V], where a penalty asks for it."""
  if way.sampling.repetition_penalty == 1.0:
    return None
  unique, length = lot.tokens_UL.shape
  had_UV = jnp.zeros((unique, way.model.config.vocab), bool)
  return had_UV.at[jnp.arange(unique)[:, None], lot.tokens_UL].max(jnp.arange(length) < lot.lengths_U[:, None])[lot.which_B]


def _write(way: Way, params: Params, ends: Ends, now: Progress) -> Progress:
  """Reads the last ids and chooses the next ones."""
  segments_B1 = now.going_B[:, None].astype(jnp.int32)
  hidden = way.model.hidden(params, now.token_B[:, None], segments_B1, now.cache)
  assert hidden.cache is not None
  return _choose(way, params, ends, replace(now, cache=hidden.cache), hidden.x_BLD)


_plain = partial(jax.jit, static_argnames='config')(laid_out)
_turned = partial(jax.jit, static_argnums=(0, 2))(lambda config, params, alone: turned(config, laid_out(config, params), alone))
_begin = partial(jax.jit, static_argnames=('way', 'room', 'slots'))(_read)
_advance = partial(jax.jit, static_argnames='way', donate_argnames='now')(_write)
_run = partial(jax.jit, static_argnames='way', donate_argnames='now')(_steps)


def _choose(way: Way, params: Params, ends: Ends, now: Progress, x_B1D: jax.Array) -> Progress:
  """Chooses an id for each row that goes on, from what its last position became, and notes it."""
  logits_BV = way.model.logits(params, x_B1D)[:, 0]
  logits_BV = jnp.where(jnp.arange(logits_BV.shape[-1]) < ends.limit, logits_BV, -jnp.inf)
  each = jnp.arange(len(logits_BV))
  keys_B = jax.vmap(jax.random.fold_in)(now.keys_B, now.counts_B)
  token_B = choose(way.sampling, logits_BV, now.read_BV, keys_B)
  warm_BV = logits_BV / (way.sampling.temperature or 1.0)         # greedy choices are told as they are at 1
  logp_B = warm_BV[each, token_B] - jax.nn.logsumexp(warm_BV, -1)
  going_B = now.going_B
  tokens_BT = _noted(now.tokens_BT, jnp.where(going_B, token_B, 0), now.counts_B)
  logps_BT = _noted(now.logps_BT, jnp.where(going_B, logp_B, 0.0), now.counts_B)
  reason_B, counts_B = reason_of(ends, tokens_BT, now.counts_B), now.counts_B + going_B
  reason_B = jnp.where((reason_B == GOING) & (counts_B == now.max_new), LENGTH, reason_B)
  read_BV = None if now.read_BV is None else now.read_BV.at[each, token_B].max(going_B)
  return replace(now, token_B=token_B, tokens_BT=tokens_BT, logps_BT=logps_BT, counts_B=counts_B, read_BV=read_BV,
                 reason_B=jnp.where(going_B, reason_B, now.reason_B))


def _noted(row_BT: jax.Array, new_B: jax.Array, place_B: jax.Array) -> jax.Array:
  """Each row with something new in its place, if it has that place."""
  return jax.vmap(lambda row, new, place: row.at[place].set(new, mode='drop'))(row_BT, new_B, place_B)


def numbered(key: jax.Array, number_B: np.ndarray | jax.Array) -> jax.Array:
  """A key for each row: by its number from one that all share, or its own as if the row were alone."""
  rows_B = jnp.zeros_like(number_B) if key.ndim else jnp.asarray(number_B)
  return jax.vmap(jax.random.fold_in)(jnp.broadcast_to(key, rows_B.shape), rows_B)


def reason_of(ends: Ends, tokens_BT: jax.Array, step: jax.Array) -> jax.Array:
  """Why a row ends with the id that it wrote in this step, i32[B]; one step for all, or one for each."""
  places_BW = jnp.broadcast_to(step, len(tokens_BT))[:, None] + 1 + jnp.arange(-ends.stop_NW.shape[1], 0)
  last_BW = jnp.where(places_BW >= 0, jnp.take_along_axis(tokens_BT, jnp.maximum(places_BW, 0), 1), -2)
  same_BN = jnp.all((last_BW[:, None] == ends.stop_NW) | (ends.stop_NW == -1), -1)
  return jnp.where(last_BW[:, -1] == ends.eos, EOS, jnp.where(jnp.any(same_BN, -1), STOP, GOING))
