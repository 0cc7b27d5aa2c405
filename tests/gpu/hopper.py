"""One case of the table by the kernels for Hopper: `python -m tests.gpu.hopper NAME [one]`. Says nothing where all is well.

The result, and the gradients, against the float64 softmax, in memory that held no numbers, and a second time to the bit; with
`one`, the gradients by one kernel, and more often.
"""

import sys
from functools import partial

import jax
import numpy as np

from kernels import attention_hopper, attention_hopper_one
from kernels.attention import attention
from kernels.attention_hopper_blocks import Tiles
from kernels.ranges import causal_ranges
from tests.gpu.memory import spoil
from tests.gpu.test_attention import LONG
from tests.kernels.attention_table import WIDE, Case, close, gradients, operands, truth

CASES = {name: case for name, case in {**LONG, **WIDE}.items() if case.head_size >= 64}
ONE = {name: case for name, case in CASES.items() if case.head_size <= max(attention_hopper_one.TILES)}
ONE['more programs than processors'] = Case(causal_ranges(2, 1200), keys=1200, heads=8, key_heads=8, head_size=64, scale=0.125)
OFTEN = 10                             # runs of one kernel: what chance decides may be right twice


def check(name: str, one: bool) -> None:
  case = (CASES | ONE)[name]
  data = operands(case, 'bfloat16')
  expected = truth(case, *data)
  attend = partial(attention_hopper.hopper, tiles=tiles(case.head_size)) if one else partial(attention, implementation='hopper')
  forward = jax.jit(lambda q, k, v, _: (attend(q, k, v, case.ranges, scale=case.scale, softcap=case.softcap),))
  both = jax.jit(partial(gradients, case, attend))
  for call in (both,) if one else (forward, both):
    compiled = call.lower(*data).compile()
    spoil([x.shape for x in data] * 8)
    for _ in range(OFTEN if one else 1):
      for first, second, right in zip(compiled(*data), compiled(*data), expected):
        close(first, right, 3e-2)
        np.testing.assert_array_equal(np.asarray(first, 'float32'), np.asarray(second, 'float32'))


def tiles(size: int) -> Tiles:
  """The forward kernel's own, and those of one kernel for the gradients."""
  own = next(tile for width, tile in attention_hopper_one.TILES.items() if size <= width)
  return attention_hopper.tiles_for(size)._replace(backward=own)


if __name__ == '__main__':
  check(sys.argv[1], 'one' in sys.argv[2:])
