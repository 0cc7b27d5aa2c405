"""What one round of speculation does to a batch: proposals, one pass of the model over them, and what is kept of them.

Letters: B rows, L positions of the prompts, S places for prompts and answers, A ids ahead, C = A + 1 candidates, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from model.accept import Proposed, judge, leading, probabilities
from model.ahead import Record, best, sizes
from model.cache import Cache, grow
from model.decoder import Model, Params
from model.errors import demand
from model.generate import LENGTH, Ends, Way, beginning, had, numbered, prefill, reason_of
from model.lookup import Lookup
from model.membership import GOING
from model.prompts import Lot, rounded
from model.sampling import choose

DRAFTED = 0                         # what a position's key is folded with for the draft's id; others: model.accept


@struct.dataclass
class Draft:
  """Proposes what a smaller model of the same tokenizer writes, `ahead` ids a round.

  Always so many: what a row writes above temperature 0 depends on how many are proposed, and must not on the other rows.
  """

  model: Model = struct.field(pytree_node=False)
  params: Params
  ahead: int = struct.field(pytree_node=False, default=3)      # 4 positions cost a CPU what 2 do

  def __post_init__(self):
    demand(self.ahead > 0, 'Draft.ahead', self.ahead, 'it is how many ids are proposed at once', 'use at least 1')


Drafter = Lookup | Draft


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
  keys_B: jax.Array
  record: Record | None               # what became of the proposals of `Lookup`
  read_BV: jax.Array | None           # bool: which ids each row has, where a penalty asks for it
  max_new: jax.Array                  # i32[]

  @property
  def steps_B(self) -> jax.Array:
    """How many ids each row has written."""
    return self.lengths_B - self.begins_B

  @property
  def going_B(self) -> jax.Array:
    return self.reason_B == GOING

  def last(self, count: int) -> jax.Array:
    """The last ids of each row, i32[B, count]."""
    return jax.vmap(lambda row, end: jax.lax.dynamic_slice(row, (end - count,), (count,)))(self.ids_BS, self.lengths_B)


class Round(NamedTuple):
  """What does not change from round to round."""

  way: Way
  params: Params
  drafter: Drafter
  ends: Ends


def read(this: Round, lot: Lot, slots: int, max_new, longest: int) -> Progress:
  """The prompts read and the first ids chosen. `slots` positions can be kept; no text becomes longer than the longest."""
  x_B1D, cache = prefill(this.way.model, this.params, lot)
  drafted = record = None
  if isinstance(this.drafter, Draft):   # its positions may end before the padding does
    draft, fits = this.drafter, rounded(this.drafter.model, lot.length)
    drafted = grow(prefill(draft.model, draft.params, lot._replace(tokens_UL=lot.tokens_UL[:, :fits]))[1], slots)
  else:
    record = Record.begin(len(x_B1D))
  room = longest + this.drafter.ahead + 1
  ids_BS = jnp.pad(lot.tokens_UL, ((0, 0), (0, room - lot.length)))[lot.which_B]
  lengths_B, none_B = lot.lengths_U[lot.which_B], jnp.zeros(len(x_B1D), jnp.int32)
  now = Progress(grow(cache, slots), drafted, ids_BS, jnp.zeros(ids_BS.shape), lengths_B, lengths_B, beginning(lot), none_B,
                 numbered(lot.key, lot.number_B), record, had(this.way, lot), jnp.asarray(max_new, jnp.int32))
  return _settle(this, now, Proposed(jnp.zeros((len(x_B1D), 0), jnp.int32), None), x_B1D)


def _on(model: Model, params: Params, ids_BL: jax.Array, seen_BL: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
  """What the last norm gives for ids that go on where a cache stands, [B, L, D], and the cache with them."""
  hidden = model.hidden(params, ids_BL, seen_BL.astype(jnp.int32), cache)
  assert hidden.cache is not None
  return hidden.x_BLD, hidden.cache


def go_on(this: Round, going: Callable[[Progress], jax.Array], now: Progress) -> Progress:
  """Rounds while `going` says so: proposals, and one pass of the model over each row's last id and them.

  Each size of a pass has a loop of its own: a branch would be given copies of the caches.
  """
  drafter = this.drafter
  if isinstance(drafter, Draft):
    return jax.lax.while_loop(going, lambda now: _pass(this, *_draft(this, drafter, now)), now)
  counts = sizes(drafter.ahead)

  def looked(now: Progress) -> jax.Array:
    return jnp.where(now.going_B[:, None], drafter(now.ids_BS, now.lengths_B), -1)

  def chosen(now: Progress) -> jax.Array:
    assert now.record is not None
    return best(now.record, looked(now)[:, 0] >= 0, now.going_B, counts)

  def some(now: Progress) -> Progress:
    for i, count in enumerate(counts):

      def pays(now: Progress, i: int = i) -> jax.Array:
        return going(now) & (chosen(now) == i)

      def judged(now: Progress, count: int = count) -> Progress:
        return _pass(this, Proposed(looked(now)[:, :count], None), now)

      now = jax.lax.while_loop(pays, judged, now)
    return now

  return jax.lax.while_loop(going, some, now)


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
    keys_B = jax.vmap(lambda key, step: jax.random.fold_in(jax.random.fold_in(key, step), DRAFTED))(now.keys_B, step_B)
    id_B = choose(sampling, logits_BV, read_BV, keys_B)
    q_BV = None if sampling.temperature == 0.0 else probabilities(sampling, logits_BV, read_BV)
    return (cache, id_B, _noted(read_BV, id_B[:, None], now.going_B[:, None])), (id_B, q_BV)

  before_B = jnp.maximum(now.lengths_B - 2, 0)      # a row without a prompt has fewer, and one below 0 would stop all writing
  begun, first = write(replace(now.drafted, lengths_B=before_B), now.last(2), now.read_BV, now.steps_B)
  done, others = jax.lax.scan(lambda state, i: write(state[0], state[1][:, None], state[2], now.steps_B + i), begun,
                              jnp.arange(1, draft.ahead))
  ids_BA, q_BAV = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]).swapaxes(0, 1), first, others)
  return Proposed(ids_BA, q_BAV), replace(now, drafted=done[0])


def _settle(this: Round, now: Progress, proposed: Proposed, x_BCD: jax.Array) -> Progress:
  """Keeps what holds of the proposals and one id more, up to where a row ends."""
  logits_BCV = _limited(this.ends, this.way.model.logits(this.params, x_BCD))
  more_C = jnp.arange(x_BCD.shape[1])
  keys_BC = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(now.keys_B, now.steps_B[:, None] + more_C)
  ids_BC, counts_B = judge(this.way.sampling, logits_BCV, now.read_BV, proposed, keys_BC)
  record = now.record and now.record.noted((proposed.ids_BA >= 0).sum(1), counts_B - 1)
  ids_BS = _put(now.ids_BS, ids_BC, now.lengths_B)
  reason_BC = _reasons(this.ends, ids_BS, now.begins_B, now.steps_B[:, None] + more_C)
  counts_B = jnp.minimum(jnp.minimum(counts_B, leading(reason_BC == GOING) + 1), now.max_new - now.steps_B)
  counts_B = jnp.where(now.going_B, counts_B, 0)
  reason_B = jnp.take_along_axis(reason_BC, jnp.maximum(counts_B - 1, 0)[:, None], 1)[:, 0]
  reason_B = jnp.where((reason_B == GOING) & (now.steps_B + counts_B == now.max_new), LENGTH, reason_B)
  warm_BCV = logits_BCV / (this.way.sampling.temperature or 1.0)
  logps_BC = jnp.take_along_axis(warm_BCV, ids_BC[..., None], 2)[..., 0] - jax.nn.logsumexp(warm_BCV, -1)
  return replace(now, ids_BS=ids_BS, logps_BS=_put(now.logps_BS, logps_BC, now.lengths_B), lengths_B=now.lengths_B + counts_B,
                 reason_B=jnp.where(now.going_B, reason_B, now.reason_B), passes_B=now.passes_B + now.going_B,
                 record=record, read_BV=_noted(now.read_BV, ids_BC, more_C < counts_B[:, None]))


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
