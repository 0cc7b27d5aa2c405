"""The Hopper kernels without such a GPU: refusals, lowering, and interpret mode where jax has it. With one: tests/gpu."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import attention_hopper_one
from kernels.attention_bounds import key_bounds, query_bounds, within
from kernels.attention_call import Call
from kernels.attention_hopper import TILES, hopper, hopper_refusal, tiles_for
from kernels.attention_hopper_backward import WIDE
from kernels.attention_hopper_blocks import Walk
from kernels.ranges import Kind, Ranges, causal_ranges, packed_ranges
from tests.kernels.attention_table import Case, gradients, mask

HERE = Call(2048, 2048, 128, 'bfloat16', Kind(None, 0), None, 'gpu', 9.0)
INTERPRETED = '0.12.0.1'               # what tests/kernels/hopper_interpret.py reaches into
MEMORY = 227 * 1024                    # that a program can share on a Hopper


@pytest.mark.parametrize(('call', 'why'), [
  (HERE._replace(platform='cpu'), 'it runs on NVIDIA GPUs, not on cpu'),
  (HERE._replace(capability=8.0), 'it needs compute capability 9.0'),
  (HERE._replace(capability=10.0), 'it needs compute capability 9.0'),
  (HERE._replace(dtype='float32'), 'it takes float16 and bfloat16'),
  (HERE._replace(head_size=32), 'head size 32 is not 64 to 256'),
  (HERE._replace(head_size=320), 'head size 320 is not 64 to 256'),
])
def test_refusals(call, why):
  assert hopper_refusal(call).startswith(why)


def test_a_newer_jax_than_this_may_be_needed():
  """They were compiled and measured with jax 0.11: older versions are refused, newer ones are not."""
  assert hopper_refusal(HERE) == (None if jax.__version_info__ >= (0, 11) else f'it needs jax 0.11, not {jax.__version__}')


def lowered(size: int, dtype: str, softcap: float | None, length: int, **how: Any) -> str:
  q, k = (jax.ShapeDtypeStruct((2, length, heads, size), dtype) for heads in (4, 2))

  def go(segments, *data):
    return gradients(Case(packed_ranges(segments), scale=0.1, softcap=softcap), partial(hopper, **how), *data)

  traced = jax.jit(go).trace(jax.ShapeDtypeStruct((2, length), 'int32'), q, k, k, q)
  return traced.lower(lowering_platforms=('cuda',)).as_text()


@pytest.mark.parametrize(('size', 'dtype', 'softcap', 'length'), [
  (64, 'bfloat16', None, 1024), (80, 'bfloat16', 20.0, 300), (256, 'float16', None, 1), (128, 'bfloat16', 20.0, 129)])
def test_lowers_for_the_chip(size, dtype, softcap, length):
  """With its own blocks, for a chip that is not here: three kernels, forward and backward, whatever the length."""
  assert lowered(size, dtype, softcap, length).count('custom_call @mosaic_gpu_v2') == 3


@pytest.mark.parametrize(('size', 'dtype', 'softcap', 'length'), [(64, 'float16', 20.0, 1), (128, 'bfloat16', None, 300)])
def test_lowers_with_one_backward_kernel(size, dtype, softcap, length):
  tiles = tiles_for(size)._replace(backward=attention_hopper_one.TILES[size])
  assert lowered(size, dtype, softcap, length, tiles=tiles).count('custom_call @mosaic_gpu_v2') == 2


@pytest.mark.parametrize('size', TILES)
def test_tiles_fit_shared_memory(size):
  """2 bytes each of the rows that stay and of the stages."""
  for kernel, (t, c, stages, groups) in {'forward': TILES[size].forward, **TILES[size].backward._asdict()}.items():
    rows = t * (groups if kernel != 'keys' or size <= WIDE else 1) * (1 if kernel == 'forward' else 2)
    assert 2 * size * (rows + c * stages) + (16 * c * stages if kernel == 'keys' else 0) < MEMORY and stages >= 2


@pytest.mark.parametrize(('size', 'tile'), attention_hopper_one.TILES.items())
def test_one_kernel_fits_shared_memory(size, tile):
  """2 bytes each of keys, values, stages and two stages of slopes, 4 of a block's dq."""
  assert 4 * size * (tile.span + tile.c) + tile.stages * tile.c * (2 * size + 16) + 4 * tile.span * tile.c < MEMORY - 1024
  assert tile.c == tile.span or size // tile.groups >= 64        # half a head is a whole swizzled tile


RANGES = np.sort(np.random.default_rng(1).integers(-20, 220, (2, 4, 200)), axis=0) * (np.arange(200) % 90 > 30)
SEEN = [packed_ranges(jnp.asarray(np.arange(200) // 37 + 1)[None]), causal_ranges(1, 200), causal_ranges(1, 200, 3),
        Ranges(*jnp.asarray(RANGES, jnp.int32), Kind())]


@pytest.mark.parametrize(('c', 'span'), [(16, 32), (32, 16)])
@pytest.mark.parametrize('ranges', SEEN)
def test_programs_that_add_to_dq_are_those_that_are_waited_for(ranges, c, span):
  """A program that others wait for at a block of queries loops over it, else they would deadlock; others add nothing to it."""
  first, last = within(ranges.first_BL, ranges.last_BL, 200)
  turns_BN4, walks_BM4 = key_bounds(first, last, c, span), query_bounds(first, last, 200, c, span)
  i_M1, j_N = np.arange(walks_BM4.shape[1])[:, None], np.arange(turns_BN4.shape[1])
  turn_BMN = (i_M1 >= turns_BN4[:, None, :, 0]) & (i_M1 < turns_BN4[:, None, :, 3])
  walked_BMN = (j_N >= walks_BM4[:, :, :1]) & (j_N < walks_BM4[:, :, 3:])
  seen_BLS = np.pad(mask(Ranges(first, last, Kind()), 200), ((0, 0), (0, -200 % c), (0, -200 % span)))
  live_BMN = seen_BLS.reshape(len(first), len(j_N), c, len(i_M1), span).any((2, 4)).transpose(0, 2, 1)
  assert not (turn_BMN & ~walked_BMN).any() and not (live_BMN & ~turn_BMN).any() and turn_BMN.any()


def test_a_reversed_loop():
  """The same blocks with the same masks, the last first."""
  def blocks(walk: Walk, of: Callable[[int], int]) -> list[tuple[bool, int]]:
    return [(bool(not walk.whole <= j < walk.past), of(j)) for j in range(walk.start, walk.stop)]
  walk = Walk(2, 3, 6, 9)
  assert blocks(walk.down(), lambda u: 8 - u) == blocks(walk, int)[::-1]


interpreter = pytest.mark.skipif(jax.__version__ != INTERPRETED, reason=f'the interpreter of jax {INTERPRETED}')


def interpreted(*cases: str) -> subprocess.CompletedProcess:
  environment = os.environ | {'NPROC': '24', 'JAX_PLATFORMS': 'cpu'}
  return subprocess.run([sys.executable, '-m', 'tests.kernels.hopper_interpret', *cases], env=environment, timeout=600,
                        capture_output=True, text=True)


@interpreter
def test_interpreted():
  """Copies, barriers, masks and sums, with every stage filled again and three warpgroups too, and no race; a block too few
  is noticed."""
  done = interpreted('packed', 'scattered', 'wide')
  assert done.returncode == 0, done.stderr[-2000:]
  assert 'AssertionError' in interpreted('cut', 'packed').stderr


@interpreter
def test_interpreted_in_turns():
  """Programs of one kernel for all gradients side by side: no race between those that add to the same dq, and one where
  nobody waits."""
  done = interpreted('one packed', 'one scattered', 'one wide')
  assert done.returncode == 0, done.stderr[-2000:]
  assert 'RACE DETECTED' in interpreted('hasty', 'one causal').stderr
