"""One case of the table by the kernels for Hopper: `python -m tests.gpu.hopper NAME`. Says nothing where all is well.

The result, and the gradients, against the float64 softmax, in memory that held no numbers, and a second time to the bit.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from kernels.attention import attention
from tests.gpu.test_attention import LONG
from tests.kernels.attention_table import WIDE, close, gradients, operands, truth

CASES = {name: case for name, case in {**LONG, **WIDE}.items() if case.head_size >= 64}


def check(name: str) -> None:
  case = CASES[name]
  data = operands(case, 'bfloat16')
  expected = truth(case, *data)
  attend = partial(attention, implementation='hopper')
  forward = jax.jit(lambda q, k, v, _: (attend(q, k, v, case.ranges, scale=case.scale, softcap=case.softcap),))
  for call in (forward, jax.jit(partial(gradients, case, attend))):
    compiled = call.lower(*data).compile()
    poison = [jnp.full(x.shape, jnp.nan, x.dtype) for x in data for _ in range(8)]
    jax.block_until_ready(poison)
    del poison
    for first, second, right in zip(compiled(*data), compiled(*data), expected):
      close(first, right, 3e-2)
      np.testing.assert_array_equal(np.asarray(first, 'float32'), np.asarray(second, 'float32'))


if __name__ == '__main__':
  check(sys.argv[1])
