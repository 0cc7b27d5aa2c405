"""Text from a model: prompts are read at once, then one token a row at a time in a compiled loop.

Prompts that are alike are read once. The loop is left only for another size: for more room in the cache, or for fewer rows
where half of them have ended (model.membership). Lengths are rounded up to powers of two, so that a few programs serve all
prompts. A row's tokens depend on its prompt, its number and the key alone: not on the other rows, nor on the rounding. With
a key for each row, it does not depend on its number either.

Letters: B rows, U prompts that differ, L positions of the prompts, T positions of the answers, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from model.cache import Cache, grow, rows
from model.config import Learned
from model.decoder import Model, Params, check_length, laid_out
from model.errors import DataError, demand
from model.membership import GOING, Answers, Told, alike, enough, staying
from model.sampling import Sampling, choose
from model.sharding import pin
from model.turned import turned

Reason = Literal['eos', 'stop', 'length']
Stops = tuple[tuple[int, ...], ...]

SHORTEST = 16     # rounding ends here
MANY_STEPS = 64   # which win more by matrices that lie turned (model.turned) than it takes to turn them
WHOLE = 256       # caches up to here are not worth a program for each size
EOS, STOP = 1, 2                      # why a row ended; model.membership.GOING: it did not


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
  reason_B: jax.Array                 # i32: GOING, EOS or STOP
  counts_B: jax.Array                 # i32: how many ids each row has written
  read_BV: jax.Array | None           # bool: which ids each row has, where a penalty asks for it
  keys_B: jax.Array
  step: jax.Array                     # i32[]


def generate(model: Model, params: Params, prompts: list[list[int]], *, max_new: int, sampling: Sampling,
             key: jax.Array, eos: int | None = None, stop: Stops = (), limit: int | None = None) -> Generated:
  """What the model writes after each prompt: at most `max_new` ids, fewer where `eos` or a stop sequence ends it.

  Ids from `limit` on are never written: a vocabulary may be padded beyond its tokenizer. `key` is one for all, or an
  array of one for each prompt, which then gets what it would get alone with that key.

  Raises: DataError if a prompt is empty; ConfigError if prompt and answer have more positions than the model.
  """
  tokens_BL, lengths_B = prepared(model, prompts, max_new)
  sizes = stages(tokens_BL.shape[1], rounded(model, tokens_BL.shape[1] + max_new))
  way, end = Way(model, sampling), Ends.of(model, eos, stop, limit)
  ready = _laid(model, params, max_new)
  first_U, which_B = alike(prompts)
  now = _begin(way, ready, end, tokens_BL[first_U], lengths_B[first_U], which_B, key, room=round_up(max_new), slots=sizes[0])
  answers = Answers.begin(len(prompts))
  while True:
    now = _run(way, ready, end, now, max_new)
    told, step, longest = _told(now)
    answers.note(told)
    if step == max_new or not np.any(told.reason_C == GOING):
      return _made(answers)
    kept = staying(told.reason_C == GOING)
    answers.keep(kept)
    now = _moved(now, kept, slots=max(now.cache.slots, next(size for size in sizes if size > longest)))


def stream(model: Model, params: Params, prompt: list[int], *, max_new: int, sampling: Sampling, key: jax.Array,
           eos: int | None = None, stop: Stops = (), limit: int | None = None) -> Iterator[int]:
  """The same ids as `generate` gives for one prompt, each as soon as it is there. The cache grows by doubling."""
  tokens_BL, lengths_B = prepared(model, [prompt], max_new)
  way, ends = Way(model, sampling), Ends.of(model, eos, stop, limit)
  ready, only = _laid(model, params, max_new), np.zeros(1, np.int32)
  now = _begin(way, ready, ends, tokens_BL, lengths_B, only, key, room=round_up(max_new), slots=tokens_BL.shape[1])
  for count in range(1, max_new + 1):
    token_B, reason_B = jax.device_get((now.token_B, now.reason_B))
    yield int(token_B[0])
    if count == max_new or reason_B[0] != GOING:
      return
    if len(prompt) + count > now.cache.slots:
      now = replace(now, cache=grow(now.cache, 2 * now.cache.slots))
    now = _advance(way, ready, ends, now)


def lay_out(model: Model, params: Params) -> Params:
  """The parameters as `generate` and `stream` read them fastest.

  Unless they are given its result they do it each time, or the quicker half of it where few steps follow: who asks often of
  the same parameters does it once, and holds a second copy of them.
  """
  return _turned(model.config, params)


def _laid(model: Model, params: Params, steps: int) -> Params:
  return lay_out(model, params) if steps >= MANY_STEPS else _plain(model.config, params)


def round_up(length: int) -> int:
  """The next power of two, at least 16."""
  return max(SHORTEST, 1 << (length - 1).bit_length())


def rounded(model: Model, length: int) -> int:
  """The length rounded up, as far as the model has positions."""
  positions = model.config.positions
  return min(round_up(length), positions.length) if isinstance(positions, Learned) else round_up(length)


def prepared(model: Model, prompts: list[list[int]], max_new: int) -> tuple[np.ndarray, np.ndarray]:
  """Prompts in one array, padded to a rounded length, and their own lengths."""
  for i, prompt in enumerate(prompts):
    if not prompt:
      raise DataError('generate.empty-prompt', f'prompt {i} has no tokens', 'the first token follows from at least one',
                      "begin it with the tokenizer's bos id")
    if not 0 <= min(prompt) <= max(prompt) < model.config.vocab:
      raise DataError('generate.unknown-id', f'prompt {i} has ids from {min(prompt)} to {max(prompt)}',
                      f'the model knows ids from 0 to {model.config.vocab - 1}',
                      'use the tokenizer that it was trained with')
  demand(max_new > 0, 'max_new', max_new, 'it is how many ids to write', 'give at least 1')
  lengths_B = np.array([len(prompt) for prompt in prompts], np.int32)
  check_length(model.config, int(lengths_B.max()) + max_new)
  tokens_BL = np.zeros((len(prompts), rounded(model, int(lengths_B.max()))), np.int32)
  for row, prompt in zip(tokens_BL, prompts):
    row[:len(prompt)] = prompt
  return tokens_BL, lengths_B


def _made(answers: Answers) -> Generated:
  """What was written, as long as it is."""
  assert answers.told is not None
  tokens, logps, counts, reasons = answers.told
  return Generated([row[:n] for row, n in zip(tokens, counts)], [row[:n] for row, n in zip(logps, counts)],
                   [('length', 'eos', 'stop')[reason] for reason in reasons])


def _told(now: Progress) -> tuple[Told, int, int]:
  """What the rows have written, how many steps, and how many slots of the cache the longest has filled."""
  told = jax.device_get((now.tokens_BT, now.logps_BT, now.counts_B, now.reason_B, now.step, now.cache.lengths_B))
  return Told(*told[:4]), int(told[4]), int(told[5].max())


def _steps(way: Way, params: Params, ends: Ends, now: Progress, max_new) -> Progress:
  """Goes on until all is written, or the cache is full, or enough rows have ended for a smaller batch."""
  few, size = enough(len(now.token_B)), now.cache.slots

  def going(now: Progress):
    return (now.step < max_new) & ((now.reason_B == GOING).sum() > few) & (now.cache.lengths_B.max() < size)

  return _seen(jax.lax.while_loop(going, lambda now: _write(way, params, ends, now), now))


def _seen(now: Progress) -> Progress:
  """The same with all that is told on every device, so that each process of a job can read it."""
  return replace(now, tokens_BT=pin(now.tokens_BT, None, None), logps_BT=pin(now.logps_BT, None, None),
                 counts_B=pin(now.counts_B, None), reason_B=pin(now.reason_B, None),
                 cache=replace(now.cache, lengths_B=pin(now.cache.lengths_B, None)))


def _resized(now: Progress, kept_C: jax.Array, slots: int) -> Progress:
  """These rows, with so much room in their cache."""
  kept = jax.tree.map(lambda x: x[kept_C] if x.ndim else x, now)
  return replace(kept, cache=grow(kept.cache, slots))


def stages(first: int, last: int) -> list[int]:
  """The sizes that a cache grows through: each step reads all of it, so a short text should not pay for a long one's."""
  sizes = [last]
  while sizes[0] // 4 >= max(first, WHOLE):
    sizes.insert(0, sizes[0] // 4)
  return sizes


def _read(way: Way, params: Params, ends: Ends, tokens_UL, lengths_U, which_B, key, room: int, slots: int) -> Progress:
  """The prompts read, each row's own taken of them, and the first ids chosen. `slots` positions can be kept."""
  unique, length = tokens_UL.shape
  index_UL = jnp.broadcast_to(jnp.arange(length), (unique, length))
  segments_UL = (index_UL < lengths_U[:, None]).astype(jnp.int32)
  hidden = way.model.hidden(params, tokens_UL, segments_UL, way.model.cache(unique, length))
  assert hidden.cache is not None
  x_U1D = jnp.take_along_axis(hidden.x_BLD, (lengths_U - 1)[:, None, None], axis=1)
  read_BV = None
  if way.sampling.repetition_penalty != 1.0:
    each = jnp.arange(unique)[:, None]
    read_BV = jnp.zeros((unique, way.model.config.vocab), bool).at[each, tokens_UL].max(segments_UL == 1)[which_B]
  batch, cache = len(which_B), hidden.cache
  cache = grow(cache if unique == batch else rows(cache, which_B), slots)
  none_B = jnp.zeros(batch, jnp.int32)
  now = Progress(cache, none_B, jnp.zeros((batch, room), jnp.int32), jnp.zeros((batch, room)), none_B, none_B, read_BV,
                 keys_of(key, batch), jnp.zeros((), jnp.int32))
  return _choose(way, params, ends, now, x_U1D[which_B])


def _write(way: Way, params: Params, ends: Ends, now: Progress) -> Progress:
  """Reads the last ids and chooses the next ones."""
  segments_B1 = (now.reason_B == GOING)[:, None].astype(jnp.int32)
  hidden = way.model.hidden(params, now.token_B[:, None], segments_B1, now.cache)
  assert hidden.cache is not None
  return _choose(way, params, ends, replace(now, cache=hidden.cache), hidden.x_BLD)


_plain = partial(jax.jit, static_argnames='config')(laid_out)
_turned = partial(jax.jit, static_argnames='config')(lambda config, params: turned(config, laid_out(config, params)))
_begin = partial(jax.jit, static_argnames=('way', 'room', 'slots'))(_read)
_advance = partial(jax.jit, static_argnames='way', donate_argnames='now')(_write)
_run = partial(jax.jit, static_argnames='way', donate_argnames='now')(_steps)
_moved = partial(jax.jit, static_argnames='slots')(_resized)


def _choose(way: Way, params: Params, ends: Ends, now: Progress, x_B1D: jax.Array) -> Progress:
  """Chooses an id for each row that goes on, from what its last position became, and notes it."""
  logits_BV = way.model.logits(params, x_B1D)[:, 0]
  logits_BV = jnp.where(jnp.arange(logits_BV.shape[-1]) < ends.limit, logits_BV, -jnp.inf)
  each = jnp.arange(len(logits_BV))
  keys_B = jax.vmap(lambda key: jax.random.fold_in(key, now.step))(now.keys_B)
  token_B = choose(way.sampling, logits_BV, now.read_BV, keys_B)
  warm_BV = logits_BV / (way.sampling.temperature or 1.0)         # greedy choices are told as they are at 1
  logp_B = warm_BV[each, token_B] - jax.nn.logsumexp(warm_BV, -1)
  going_B = now.reason_B == GOING
  tokens_BT = jax.lax.dynamic_update_slice(now.tokens_BT, jnp.where(going_B, token_B, 0)[:, None], (0, now.step))
  logps_BT = jax.lax.dynamic_update_slice(now.logps_BT, jnp.where(going_B, logp_B, 0.0)[:, None], (0, now.step))
  reason_B = jnp.where(going_B, reason_of(ends, tokens_BT, now.step), now.reason_B)
  read_BV = None if now.read_BV is None else now.read_BV.at[each, token_B].max(going_B)
  return replace(now, token_B=token_B, tokens_BT=tokens_BT, logps_BT=logps_BT, reason_B=reason_B,
                 counts_B=now.counts_B + going_B, read_BV=read_BV, step=now.step + 1)


def keys_of(key: jax.Array, batch: int) -> jax.Array:
  """A key for each row: by its number from one that all share, or its own as if the row were alone."""
  rows = jnp.zeros(batch, jnp.int32) if key.ndim else jnp.arange(batch)
  return jax.vmap(jax.random.fold_in)(jnp.broadcast_to(key, (batch,)), rows)


def reason_of(ends: Ends, tokens_BT: jax.Array, step: jax.Array) -> jax.Array:
  """Why a row ends with the id that it wrote in this step, i32[B]."""
  width = ends.stop_NW.shape[1]
  places_W = step - width + 1 + jnp.arange(width)
  last_BW = jnp.where(places_W >= 0, tokens_BT[:, jnp.maximum(places_W, 0)], -2)
  same_BN = jnp.all((last_BW[:, None] == ends.stop_NW) | (ends.stop_NW == -1), -1)
  return jnp.where(last_BW[:, -1] == ends.eos, EOS, jnp.where(jnp.any(same_BN, -1), STOP, GOING))
