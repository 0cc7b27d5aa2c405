"""Prompt lookup (Saxena 2023): proposes what followed the last place in the text that ended as it ends now.

Letters: B rows, S places of a text, A ids that are looked ahead.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from model.errors import demand


@struct.dataclass
class Lookup:
  """Proposes `ahead` ids: what followed the last place where the last `ngram` ids occurred before.

  If there is none, fewer ids are looked for, down to `least`: a single id is too seldom followed by the same id as before to
  pay for a pass over more positions. A pass judges as many proposals as pay (`model.ahead`). With the last id these are at
  most 8 positions: a CPU multiplies by fours, and 9 would cost half as much again.
  """

  ngram: int = struct.field(pytree_node=False, default=3)
  ahead: int = struct.field(pytree_node=False, default=7)
  least: int = struct.field(pytree_node=False, default=2)

  def __post_init__(self):
    demand(self.least > 0, 'Lookup.least', self.least, 'it is how many last ids must occur before', 'use at least 1')
    demand(self.ngram >= self.least, 'Lookup.ngram', self.ngram, f'at least {self.least} ids are looked for', 'raise it')
    demand(self.ahead > 0, 'Lookup.ahead', self.ahead, 'it is how many ids are proposed at once', 'use at least 1')

  def __call__(self, ids_BS: jax.Array, lengths_B: jax.Array) -> jax.Array:
    """The proposals after the first `lengths` ids of each row, i32[B, A]; -1 all where the last ids are new."""
    return jax.vmap(partial(_row, self))(ids_BS, lengths_B)


def _row(lookup: Lookup, ids_S: jax.Array, length: jax.Array) -> jax.Array:
  """The longest agreement wins, and of these the last. What follows it goes round where it reaches the end of the text."""
  size = len(ids_S)
  places_S, agrees_S, agreed_S = jnp.arange(size), jnp.ones(size, bool), jnp.zeros(size, jnp.int32)
  for back in range(1, lookup.ngram + 1):
    agrees_S &= (places_S >= back) & (jnp.roll(ids_S, back) == ids_S[length - back])
    agreed_S += agrees_S
  found_S = (agreed_S >= lookup.least) & (places_S < length)
  begin = jnp.argmax(jnp.where(found_S, agreed_S * size + places_S, -1))
  follows_A = begin + jnp.arange(lookup.ahead) % jnp.maximum(length - begin, 1)
  return jnp.where(found_S[begin], ids_S[follows_A], -1)
