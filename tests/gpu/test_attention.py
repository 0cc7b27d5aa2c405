"""Attention on a GPU: every form that can do a call against the float64 softmax, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import attention as door
from kernels.attention import FORMS, describe, explain
from kernels.ranges import cached_ranges, causal_ranges, packed_ranges
from tests.gpu.memory import spoil
from tests.kernels.attention_table import CASES, WIDE, Case, close, operands, truth
from tests.kernels.test_attention import FULLY, run

pytestmark = pytest.mark.gpu

L = 300
SEGMENTS = jnp.asarray(np.random.default_rng(0).integers(0, 2, (2, L)) * (np.arange(L) % 37 == 0)).cumsum(-1) + 1
LONG = {
  'causal': Case(causal_ranges(2, L), keys=L, head_size=64, scale=0.125),
  'causal, 128, grouped': Case(causal_ranges(2, L), keys=L, heads=4, head_size=128, scale=0.09),
  'window': Case(causal_ranges(2, L, 70), keys=L, head_size=64, scale=0.125),
  'packed': Case(packed_ranges(SEGMENTS), keys=L, heads=4, key_heads=4, head_size=64, scale=0.125),
  'packed, window, grouped': Case(packed_ranges(SEGMENTS, window=50), keys=L, heads=4, head_size=128, scale=0.09),
  'packed, cap': Case(packed_ranges(SEGMENTS), keys=L, head_size=64, scale=0.125, softcap=2.0),
  'bidirectional': Case(packed_ranges(SEGMENTS, causal=False), keys=L, head_size=64, scale=0.125),
  'packed, 32, groups of 8': Case(packed_ranges(SEGMENTS), keys=L, heads=8, key_heads=1, head_size=32, scale=0.2),
  'packed, 80, cap': Case(packed_ranges(SEGMENTS), keys=L, head_size=80, scale=0.1, softcap=2.0),
  'window, 256': Case(causal_ranges(2, L, 130), keys=L, head_size=256, scale=0.06),
  'cache': Case(cached_ranges(jnp.asarray([0, 200]), jnp.ones((2, 70), bool)), keys=L, heads=4, head_size=128, scale=0.09),
}


def able(case: Case, dtype: str) -> list[str]:
  """The forms that do not refuse the case; without the kernel that takes minutes to compile for exact float32 products, and
  without that which tests/gpu/test_hopper.py sees to."""
  q, k, *_ = (jax.ShapeDtypeStruct(x.shape, dtype) for x in operands(case))
  left_out = ('hopper', 'triton') if dtype == 'float32' and case.head_size > 64 else ('hopper',)
  return [name for name, form in FORMS.items()
          if name not in left_out and form.refusal(describe(q, k, case.ranges, case.softcap)) is None]


def check(case: Case, dtype: str, tolerance: float) -> None:
  data, forms = operands(case, dtype), able(case, dtype)
  assert 'blocked' in forms
  with jax.default_matmul_precision('highest'):
    results = jax.jit(lambda data: {form: run(case, form, *data) for form in forms})(data)
  for form, got in results.items():
    for what, value, expected in zip(('out', 'dq', 'dk', 'dv'), got, truth(case, *data)):
      assert value.dtype == dtype, (form, what)
      close(value, expected, tolerance)


@pytest.mark.parametrize('name', CASES)
def test_short_rows(name):
  check(CASES[name], 'float32', 5e-5 * max(1, CASES[name].scale))
  if name in FULLY or name in WIDE:
    check(CASES[name], 'bfloat16', 3e-2)


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-4), ('bfloat16', 3e-2)])
@pytest.mark.parametrize('name', LONG)
def test_rows_of_several_blocks(name, dtype, tolerance):
  check(LONG[name], dtype, tolerance)


@pytest.mark.parametrize('seed', [1, 2])
@pytest.mark.parametrize('name', LONG)
def test_kernels_write_all_of_their_results(name, seed):
  """Into memory that held no numbers, from other inputs each time; and a second time to the bit."""
  case = LONG[name]
  data = operands(case, 'bfloat16', seed)
  call = jax.jit(lambda data: run(case, 'triton', *data)).lower(data).compile()
  spoil([(2**20,)] * 64 + [x.shape for x in data] * 4)
  first, second = call(data), call(data)
  for value, again, expected in zip(first, second, truth(case, *data)):
    close(value, expected, 3e-2)
    np.testing.assert_array_equal(np.asarray(value, 'float32'), np.asarray(again, 'float32'))


def test_packed_rows_take_our_kernels_once_they_are_tried(monkeypatch):
  monkeypatch.setattr(door, 'UNTRIED', frozenset())
  q, k, *_ = operands(LONG['packed'], 'bfloat16')
  choice = explain(q, k, LONG['packed'].ranges)
  assert choice.name == ('triton' if 'hopper' in choice.refused else 'hopper')


def test_causal_rows_in_bfloat16_take_cudnn():
  q, k, *_ = operands(LONG['causal'], 'bfloat16')
  assert explain(q, k, LONG['causal'].ranges).name == 'cudnn'


def test_tensorfloat_is_near():
  """As float32 is multiplied by default: within a part in a thousand of the true result, and not nearer than rounding."""
  data = operands(LONG['packed'])
  got = jax.jit(lambda data: run(LONG['packed'], 'blocked', *data))(data)
  for value, expected in zip(got, truth(LONG['packed'], *data)):
    close(value, expected, 1e-2)
