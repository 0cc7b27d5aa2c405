"""Text from a model in fewer passes: several ids are proposed at once, and one pass judges them all (`model.accept`).

What is written has exactly the distribution that `model.generate` gives it, whatever proposes: a drafter costs or saves
time and nothing else. A row's ids depend on its prompt, its number and the key alone. Rows keep different counts, so each
has its own length; caches hold more than was kept, and what lies beyond a length is overwritten before it is read.

Letters: B rows, L positions of the prompts, S places for prompts and answers, A ids ahead, C = A + 1 candidates, V vocabulary.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from model.accept import Proposed, judge, leading, probabilities
from model.cache import Cache, grow
from model.decoder import Model, Params, check_length
from model.errors import ConfigError, demand
from model.generate import Ends, Generated, Stops, Way, keys_of, lay_out, prepared, reason_of, rounded, stages
from model.lookup import Lookup
from model.membership import GOING
from model.sampling import Sampling, choose
from model.sharding import pin

DRAFTED = 0                         # what a position's key is folded with for the draft's id; others: model.accept


@struct.dataclass
class Draft:
  """Proposes what a smaller model of the same tokenizer writes, `ahead` ids a round."""

  model: Model = struct.field(pytree_node=False)
  params: Params
  ahead: int = struct.field(pytree_node=False, default=4)

  def __post_init__(self):
    demand(self.ahead > 0, 'Draft.ahead', self.ahead, 'it is how many ids are proposed at once', 'use at least 1')


Drafter = Lookup | Draft


class Speculated(NamedTuple):
  """What was written, and in how many passes of the model over each row: one for the prompt and the first id, then rounds."""

  written: Generated
  passes: list[int]


@struct.dataclass
class Progress:
  """The state of the loop."""

  cache: Cache                        # the model has read all but a row's last id
  drafted: Cache | None               # a draft has read all but the last two, if not more
  ids_BS: jax.Array                   # i32: prompts and answers
  logps_BS: jax.Array                 # f32, of the answers' ids
  begins_B: jax.Array                 # i32: where the answers begin
  lengths_B: jax.Array                # i32: how many ids there are, prompts included
  reason_B: jax.Array                 # i32, as in model.generate
  passes_B: jax.Array                 # i32
  read_BV: jax.Array | None           # bool: which ids each row has, where a penalty asks for it
  max_new: jax.Array                  # i32[]

  @property
  def steps_B(self) -> jax.Array:
    """How many ids each row has written."""
    return self.lengths_B - self.begins_B

  @property
  def going_B(self) -> jax.Array:
    return (self.reason_B == GOING) & (self.steps_B < self.max_new)

  def last(self, count: int) -> jax.Array:
    """The last ids of each row, i32[B, count]."""
    return jax.vmap(lambda row, end: jax.lax.dynamic_slice(row, (end - count,), (count,)))(self.ids_BS, self.lengths_B)


class Round(NamedTuple):
  """What does not change from round to round."""

  way: Way
  params: Params
  drafter: Drafter
  ends: Ends
  keys_B: jax.Array


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
  ready = lay_out(model, params)
  done = _speculate(Way(model, sampling), ready, drafter, Ends.of(model, eos, stop, limit), tokens_BL, lengths_B, key, max_new,
                    slots=rounded(model, tokens_BL.shape[1] + max_new))
  ids, logps, ends, reasons, passes = jax.device_get(done)
  spans = [slice(begin, end) for begin, end in zip(lengths_B, ends)]
  written = Generated([row[span] for row, span in zip(ids, spans)], [row[span] for row, span in zip(logps, spans)],
                      [('length', 'eos', 'stop')[reason] for reason in reasons])
  return Speculated(written, passes.tolist())


def _check(draft: Model, model: Model, length: int) -> None:
  if draft.config.vocab != model.config.vocab:
    raise ConfigError('speculate.vocabulary', f'a draft of {draft.config.vocab} ids for a model of {model.config.vocab}',
                      'an id must mean the same to both', 'draft with a model of the same tokenizer')
  demand(draft.config.causal, 'Decoder.causal', draft.config.causal, 'a draft goes on with a text', 'draft with a causal model')
  check_length(draft.config, length)


@partial(jax.jit, static_argnames=('way', 'slots'))
def _speculate(way: Way, params: Params, drafter: Drafter, ends: Ends, tokens_BL, lengths_B, key, max_new, slots: int):
  """Ids and logps [B, S], where answers end, why, and after how many passes [B]: on every device, for each process to read."""
  this = Round(way, params, drafter, ends, keys_of(key, len(tokens_BL)))
  now = _read(this, tokens_BL, lengths_B, max_new, slots)
  for size in stages(tokens_BL.shape[1], slots):

    def going(now: Progress, size: int = size):
      return jnp.any(now.going_B) & (now.lengths_B.max() <= size)

    room = size + drafter.ahead         # a round writes so far, whatever of it is kept
    now = replace(now, cache=grow(now.cache, room), drafted=None if now.drafted is None else grow(now.drafted, room))
    now = jax.lax.while_loop(going, partial(_round, this), now)
  return (pin(now.ids_BS, None, None), pin(now.logps_BS, None, None),
          *(pin(x_B, None) for x_B in (now.lengths_B, now.reason_B, now.passes_B)))


def _read(this: Round, tokens_BL, lengths_B, max_new, slots: int) -> Progress:
  """The prompts read and the first ids chosen."""
  batch, length = tokens_BL.shape
  x_BLD, cache = _prefill(this.way.model, this.params, tokens_BL, lengths_B)
  drafted = read_BV = None
  if isinstance(this.drafter, Draft):   # its positions may end before the padding does
    draft, fits = this.drafter, rounded(this.drafter.model, length)
    drafted = grow(_prefill(draft.model, draft.params, tokens_BL[:, :fits], lengths_B)[1], length)
  if this.way.sampling.repetition_penalty != 1.0:
    read_BV = jnp.zeros((batch, this.way.model.config.vocab), bool)
    read_BV = read_BV.at[jnp.arange(batch)[:, None], tokens_BL].max(jnp.arange(length) < lengths_B[:, None])
  none_B, ids_BS = jnp.zeros(batch, jnp.int32), jnp.pad(tokens_BL, ((0, 0), (0, slots + this.drafter.ahead + 1 - length)))
  now = Progress(cache, drafted, ids_BS, jnp.zeros(ids_BS.shape), lengths_B, lengths_B, none_B, none_B, read_BV, max_new)
  x_B1D = jnp.take_along_axis(x_BLD, (lengths_B - 1)[:, None, None], axis=1)
  return _settle(this, now, Proposed(jnp.zeros((batch, 0), jnp.int32), None), x_B1D)


def _prefill(model: Model, params: Params, tokens_BL, lengths_B) -> tuple[jax.Array, Cache]:
  batch, length = tokens_BL.shape
  return _on(model, params, tokens_BL, jnp.arange(length) < lengths_B[:, None], model.cache(batch, length))


def _on(model: Model, params: Params, ids_BL: jax.Array, seen_BL: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
  """What the last norm gives for ids that go on where a cache stands, [B, L, D], and the cache with them."""
  hidden = model.hidden(params, ids_BL, seen_BL.astype(jnp.int32), cache)
  assert hidden.cache is not None
  return hidden.x_BLD, hidden.cache


def _round(this: Round, now: Progress) -> Progress:
  """Proposals, and one pass of the model over each row's last id and them."""
  if isinstance(this.drafter, Draft):
    return _pass(this, *_draft(this, this.drafter, now))
  ids_BA = jnp.where(now.going_B[:, None], this.drafter(now.ids_BS, now.lengths_B), -1)
  some, none = (Proposed(ids, None) for ids in (ids_BA, ids_BA[:, :0]))
  return jax.lax.cond(jnp.any(ids_BA >= 0), lambda now: _pass(this, some, now), lambda now: _pass(this, none, now), now)


def _pass(this: Round, proposed: Proposed, now: Progress) -> Progress:
  ids_BC = jnp.concatenate([now.last(1), proposed.ids_BA], 1)
  x_BCD, cache = _on(this.way.model, this.params, ids_BC, now.going_B[:, None] & (ids_BC >= 0),
                     replace(now.cache, lengths_B=now.lengths_B - 1))
  return _settle(this, replace(now, cache=cache), proposed, x_BCD)


def _draft(this: Round, draft: Draft, now: Progress) -> tuple[Proposed, Progress]:
  """What the draft writes. It reads the last two ids first, for of a round whose ids were all kept it has not read the last."""
  assert now.drafted is not None
  sampling = this.way.sampling

  def write(cache: Cache, ids_BL: jax.Array, read_BV: jax.Array | None, step_B: jax.Array):
    x_BLD, cache = _on(draft.model, draft.params, ids_BL, jnp.broadcast_to(now.going_B[:, None], ids_BL.shape), cache)
    logits_BV = _limited(this.ends, draft.model.logits(draft.params, x_BLD[:, -1:]))[:, 0]
    keys_B = jax.vmap(lambda key, step: jax.random.fold_in(jax.random.fold_in(key, step), DRAFTED))(this.keys_B, step_B)
    id_B = choose(sampling, logits_BV, read_BV, keys_B)
    q_BV = None if sampling.temperature == 0.0 else probabilities(sampling, logits_BV, read_BV)
    return (cache, id_B, _noted(read_BV, id_B[:, None], now.going_B[:, None])), (id_B, q_BV)

  begun, first = write(replace(now.drafted, lengths_B=now.lengths_B - 2), now.last(2), now.read_BV, now.steps_B)
  done, others = jax.lax.scan(lambda state, i: write(state[0], state[1][:, None], state[2], now.steps_B + i), begun,
                              jnp.arange(1, draft.ahead))
  ids_BA, q_BAV = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]).swapaxes(0, 1), first, others)
  return Proposed(ids_BA, q_BAV), replace(now, drafted=done[0])


def _settle(this: Round, now: Progress, proposed: Proposed, x_BCD: jax.Array) -> Progress:
  """Keeps what holds of the proposals and one id more, up to where a row ends."""
  logits_BCV = _limited(this.ends, this.way.model.logits(this.params, x_BCD))
  more_C = jnp.arange(x_BCD.shape[1])
  keys_BC = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(this.keys_B, now.steps_B[:, None] + more_C)
  ids_BC, counts_B = judge(this.way.sampling, logits_BCV, now.read_BV, proposed, keys_BC)
  ids_BS = _put(now.ids_BS, ids_BC, now.lengths_B)
  reason_BC = _reasons(this.ends, ids_BS, now.begins_B, now.steps_B[:, None] + more_C)
  counts_B = jnp.minimum(jnp.minimum(counts_B, leading(reason_BC == GOING) + 1), now.max_new - now.steps_B)
  counts_B = jnp.where(now.going_B, counts_B, 0)
  reason_B = jnp.take_along_axis(reason_BC, jnp.maximum(counts_B - 1, 0)[:, None], 1)[:, 0]
  warm_BCV = logits_BCV / (this.way.sampling.temperature or 1.0)
  logps_BC = jnp.take_along_axis(warm_BCV, ids_BC[..., None], 2)[..., 0] - jax.nn.logsumexp(warm_BCV, -1)
  return replace(now, ids_BS=ids_BS, logps_BS=_put(now.logps_BS, logps_BC, now.lengths_B), lengths_B=now.lengths_B + counts_B,
                 reason_B=jnp.where(now.going_B, reason_B, now.reason_B), passes_B=now.passes_B + now.going_B,
                 read_BV=_noted(now.read_BV, ids_BC, more_C < counts_B[:, None]))


def _limited(ends: Ends, logits_BLV: jax.Array) -> jax.Array:
  return jnp.where(jnp.arange(logits_BLV.shape[-1]) < ends.limit, logits_BLV, -jnp.inf)


def _put(rows_BS: jax.Array, new_BC: jax.Array, places_B: jax.Array) -> jax.Array:
  return jax.vmap(lambda row, new, place: jax.lax.dynamic_update_slice(row, new, (place,)))(rows_BS, new_BC, places_B)


def _noted(read_BV: jax.Array | None, ids_BL: jax.Array, seen_BL: jax.Array) -> jax.Array | None:
  """Which ids a row has read, with these where they are seen."""
  return None if read_BV is None else read_BV.at[jnp.arange(len(ids_BL))[:, None], ids_BL].max(seen_BL)


def _reasons(ends: Ends, ids_BS: jax.Array, begins_B: jax.Array, steps_BC: jax.Array) -> jax.Array:
  """Why each answer ends with the id of that step, i32[B, C]."""
  def of(row_S, begin, step):
    return reason_of(ends, jnp.roll(row_S, -begin)[None], step)[0]

  return jax.vmap(jax.vmap(of, (None, None, 0)))(ids_BS, begins_B, steps_BC)
