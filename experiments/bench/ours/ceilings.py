"""What the device can do at most, as JSON lines: `python -m experiments.bench.ours.ceilings [quick]`.

Products of random square matrices in bfloat16 and in float32 as jax multiplies it by default (on an NVIDIA GPU that is
TensorFloat-32), and a copy from device memory to device memory, counting bytes read and bytes written.
"""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp

from experiments.bench.worker import pace
from train.eval.ceiling import matmul_ceiling


def copied(size: int) -> float:
  """Bytes a second, read and written, of a copy of `size` bytes."""
  data = jax.random.bits(jax.random.key(0), (size // 4,), jnp.uint32)
  copy = jax.jit(jnp.copy)
  return 2 * size / pace(partial(copy, data), jax.block_until_ready)


def main(quick: bool) -> None:
  size = 512 if quick else 8192
  device = {'kind': jax.devices()[0].device_kind, 'size': size}
  for dtype in ('bfloat16', 'float32'):
    print(json.dumps({'what': f'{dtype} product', 'tflops': matmul_ceiling(dtype, size) / 1e12, **device}), flush=True)
  print(json.dumps({'what': 'copy', 'gb_per_s': copied(2**24 if quick else 2**31) / 1e9, **device}), flush=True)


if __name__ == '__main__':
  main('quick' in sys.argv[1:])
