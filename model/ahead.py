"""How many proposals a pass of speculative decoding judges, by how many of the row's earlier ones were accepted.

More positions take longer, by how much is the machine's; what they gain is the text's. So there is a program for none of the
proposals, for half and for all, and a batch takes that which gives the most ids for its time: a text that nothing can be
guessed of costs what one id after another costs. The choice knows the past alone, and whatever is proposed an id is drawn as
the model has it (`model.accept`): so nothing that is written leans on it.

Letters: B rows, A ids ahead, Z sizes.
"""

import jax
import jax.numpy as jnp
from flax import struct

from model.sharding import parts

FIRST = 1.0, 2.0                    # of so many proposals so many were kept, a row's record says before there were any
FORGOTTEN = 0.1                     # a pass turns so much of the record back to that: who was refused is asked again


@struct.dataclass
class Record:
  """How many of each row's proposals were kept, and of how many judged: up to the first refused one. Recent ones count most."""

  kept_B: jax.Array                   # f32
  judged_B: jax.Array                 # f32

  @classmethod
  def begin(cls, batch: int) -> 'Record':
    return cls(*(jnp.full(batch, first) for first in FIRST))

  def noted(self, proposed_B: jax.Array, kept_B: jax.Array) -> 'Record':
    """The record after a pass with so many proposals, of which so many were kept."""
    new = kept_B, kept_B + (kept_B < proposed_B)
    return Record(*(x_B + FORGOTTEN * (first - x_B) + new_B
                    for x_B, first, new_B in zip((self.kept_B, self.judged_B), FIRST, new)))


def sizes(ahead: int) -> tuple[int, ...]:
  """How many proposals the programs judge."""
  return tuple(sorted({0, ahead // 2, ahead}))


def best(record: Record, proposes_B: jax.Array, going_B: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
  """Which of the sizes gives the most ids for its time, i32[]; the rows that propose nothing get one id of any."""
  chance_B = record.kept_B / record.judged_B
  ids_BA = jnp.cumsum(chance_B[:, None] ** jnp.arange(sizes[-1] + 1), 1)      # with A ahead: 1 + p + ... + p^A
  ids_BZ = jnp.where(proposes_B[:, None], ids_BA[:, jnp.array(sizes)], 1.0)
  time_Z = 1 + price(len(chance_B)) * jnp.array(sizes)
  return jnp.argmax(jnp.sum(jnp.where(going_B[:, None], ids_BZ, 0.0), 0) / time_Z)


def price(batch: int) -> float:
  """What one position more of each row adds to a pass, of a pass over one of each.

  On a CPU as measured: SmolLM2-135M in float32, two cores with AVX-512, rows of 300 positions: at 1, 4 and 8 rows 0.08, 0.18
  and 0.25. Elsewhere by the roofline, unmeasured: an H100 multiplies some 200 rows by a matrix in the time that it takes to
  read it.
  """
  rows = batch // parts('batch', batch)
  return 0.4 * rows / (rows + 4) if jax.default_backend() == 'cpu' else rows / (rows + 200)
