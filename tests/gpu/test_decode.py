"""Attention over a cache by its kernel on a GPU: against the float64 softmax, with NaN in all blocks that no query sees.

The body is tried without a card too, interpreted, with the tiles that runs take.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.attention_decode import decode, tile_for
from kernels.attention_held import Held, Paged
from kernels.ranges import Kind, Ranges, cached_ranges
from tests.gpu.memory import spoil
from tests.kernels.attention_table import Case, close, mask, operands
from tests.kernels.test_attention_decode import cache, codes, expected, pages, plain

S, PAGE = 500, 32
SCATTERED = np.sort(np.random.default_rng(5).integers(-9, S + 9, (2, 2, 4)), axis=0)
SCATTERED[:, 0, 1] = 70                # a query that sees nothing, beside three that do
CASES = {
  'one query': cache([S - 1, 37], 1, S, heads=8, key_heads=2, head_size=128, scale=0.09),
  'one query, heads of 80': cache([300, 0], 1, S, heads=4, key_heads=4, head_size=80, scale=0.1),
  'four queries, a group of 8, cap': cache([200, 3], 4, S, heads=8, key_heads=1, head_size=64, scale=0.125, softcap=2.0),
  'four queries, a window': cache([470, 190], 4, S, 130, heads=6, key_heads=2, head_size=64, scale=0.125),
  'four queries, scattered': Case(Ranges(*jnp.asarray(SCATTERED, jnp.int32), Kind()), keys=S, heads=4, head_size=256,
                                  scale=0.06),
  'a row that sees nothing': Case(cached_ranges(jnp.asarray([450, 450]), jnp.asarray([[True], [False]])), keys=S, head_size=64,
                                  scale=0.125),
}
LAYS = {'plain': plain, 'codes': codes, 'pages': partial(pages, size=PAGE),
        'pages of codes': partial(pages, inner=codes, size=PAGE)}
TOLERANCE = {'float32': 1e-4, 'bfloat16': 3e-2}


def unread(case: Case, c: int) -> np.ndarray:
  """bool[B, S]: keys in blocks of c of which no query of the row sees any."""
  seen = mask(case.ranges, case.keys).any(1)
  seen = np.pad(seen, ((0, 0), (0, -case.keys % c))).reshape(len(seen), -1, c).any(-1)
  between = np.maximum.accumulate(seen, 1) & np.maximum.accumulate(seen[:, ::-1], 1)[:, ::-1]
  return ~between.repeat(c, 1)[:, :case.keys]


def ruined(lay: str, x_BSGK: jax.Array) -> Held:
  """A cache that holds these numbers, some of them NaN, and only NaN in the pages that belong to nobody."""
  with np.errstate(invalid='ignore'):
    held = LAYS[lay](x_BSGK).held
  if not isinstance(held, Paged):
    return held

  def spoil(x: jax.Array) -> jax.Array:
    free = np.setdiff1d(np.arange(len(x)), held.table_BN)
    return x if x.dtype == 'int8' else x.at[free].set(jnp.nan)      # of codes, the scales

  return held.replace(pages_PCGK=jax.tree.map(spoil, held.pages_PCGK))


def check(name: str, lay: str, dtype: str, interpret: bool, unread=unread) -> None:
  """Fails unless the kernel gives the truth of a cache that holds NaN where it need not be read, twice to the bit."""
  case = CASES[name]
  q, k, v, g = operands(case, dtype)
  c = min(tile_for(q.dtype, case.head_size).c, PAGE if 'pages' in lay else S)
  clean = [LAYS[lay](x).stands for x in (k, v)]
  gone = jnp.asarray(unread(case, c))[..., None, None]
  held = [ruined(lay, jnp.where(gone, jnp.nan, x)) for x in (k, v)]
  call = jax.jit(partial(decode, ranges=case.ranges, scale=case.scale, softcap=case.softcap, interpret=interpret))
  with jax.default_matmul_precision('highest'):
    compiled = call.lower(q, *held).compile()
  spoil([(2**20,)] * (4 if interpret else 64), dtype)
  first, second = compiled(q, *held), compiled(q, *held)
  close(first, expected(case, q, *clean, g), TOLERANCE[dtype])
  assert first.dtype == dtype and not np.asarray(first)[~mask(case.ranges, case.keys).any(-1)].any()
  np.testing.assert_array_equal(np.asarray(first, 'float32'), np.asarray(second, 'float32'))


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('lay', LAYS)
@pytest.mark.parametrize('name', CASES)
def test_on_a_card(name, lay, dtype):
  check(name, lay, dtype, interpret=False)


@pytest.mark.parametrize(('name', 'lay', 'dtype'), [
  ('one query', 'pages of codes', 'bfloat16'), ('four queries, a group of 8, cap', 'plain', 'float32'),
  ('four queries, a window', 'pages', 'bfloat16'), ('four queries, scattered', 'codes', 'float32'),
  ('a row that sees nothing', 'pages of codes', 'float32')])
def test_interpreted(name, lay, dtype):
  check(name, lay, dtype, interpret=True)


def test_what_is_read_beyond_is_noticed():
  """The control: a block too many is ruined, and the result shows it."""
  with pytest.raises(AssertionError, match='nan'):
    check('one query', 'plain', 'bfloat16', interpret=True, unread=lambda case, c: unread(case, c) | (np.arange(S) < c))
