"""The kernels for Hopper without one: what they refuse, that they lower, and interpreted where jax can. On it: tests/gpu."""

import os
import subprocess
import sys

import jax
import pytest

from kernels.attention_call import Call
from kernels.attention_hopper import TILES, hopper, hopper_refusal
from kernels.attention_hopper_backward import WIDE
from kernels.ranges import Kind, packed_ranges
from tests.kernels.attention_table import Case, gradients

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
  """What was compiled and measured is jax 0.11: an older one is told so, a newer one not."""
  assert hopper_refusal(HERE) == (None if jax.__version_info__ >= (0, 11) else f'it needs jax 0.11, not {jax.__version__}')


@pytest.mark.parametrize(('size', 'dtype', 'softcap', 'length'), [
  (64, 'bfloat16', None, 1024), (80, 'bfloat16', 20.0, 300), (256, 'float16', None, 1), (128, 'bfloat16', 20.0, 129)])
def test_lowers_for_the_chip(size, dtype, softcap, length):
  """With its own blocks, for a chip that is not here: three kernels, forward and backward, whatever the length."""
  q, k = (jax.ShapeDtypeStruct((2, length, heads, size), dtype) for heads in (4, 2))

  def go(segments, *data):
    return gradients(Case(packed_ranges(segments), scale=0.1, softcap=softcap), hopper, *data)

  traced = jax.jit(go).trace(jax.ShapeDtypeStruct((2, length), 'int32'), q, k, k, q)
  assert traced.lower(lowering_platforms=('cuda',)).as_text().count('custom_call @mosaic_gpu_v2') == 3


@pytest.mark.parametrize('size', TILES)
def test_tiles_fit_shared_memory(size):
  """2 bytes each of the rows that stay and of the stages."""
  for kernel, (t, c, stages, groups) in TILES[size]._asdict().items():
    rows = t * (groups if kernel != 'keys' or size <= WIDE else 1) * (1 if kernel == 'forward' else 2)
    assert 2 * size * (rows + c * stages) + (16 * c * stages if kernel == 'keys' else 0) < MEMORY and stages >= 2


def interpreted(*cases: str) -> subprocess.CompletedProcess:
  environment = os.environ | {'NPROC': '16', 'JAX_PLATFORMS': 'cpu'}
  return subprocess.run([sys.executable, '-m', 'tests.kernels.hopper_interpret', *cases], env=environment, timeout=200,
                        capture_output=True, text=True)


@pytest.mark.skipif(jax.__version__ != INTERPRETED, reason=f'the interpreter of jax {INTERPRETED}')
def test_interpreted():
  """Copies, barriers, masks and sums, with every stage filled again and three warpgroups too, and no race; a block too few
  is noticed."""
  done = interpreted('packed', 'scattered', 'wide')
  assert done.returncode == 0, done.stderr[-2000:]
  assert 'AssertionError' in interpreted('cut', 'packed').stderr
