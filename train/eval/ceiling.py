"""The peak FLOP/s of the hardware, which MFU refers to: from a datasheet, or measured here and now."""

import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp

# Dense bf16 FLOP/s of one device, from the makers' datasheets. The first name found in `device_kind` counts.
DATASHEET = {
  'H200 NVL': 835e12,
  'H200': 989e12,
  'H100 PCIe': 756e12,
  'H100 NVL': 835e12,
  'H100': 989e12,
  'GH200': 989e12,
  'B200': 2250e12,
  'A100': 312e12,
  'L40S': 362e12,
  'L4': 121e12,
  'TPU v6': 918e12,
  'TPU v5p': 459e12,
  'TPU v5 lite': 197e12,
  'TPU v5': 459e12,
  'TPU v4': 275e12,
}


@dataclass(frozen=True)
class Peak:
  """FLOP/s of all devices together, and where the figure comes from, in words."""

  flops: float
  origin: str


def peak(dtype: str) -> Peak:
  """The datasheet's bfloat16 peak where the device is known; else of products of `dtype` matrices measured here."""
  devices = jax.devices()
  kind = devices[0].device_kind
  if known := on_datasheet(kind):
    return Peak(known * len(devices), f'the datasheet of {len(devices)} x {kind} for dense bfloat16')
  chips = 1 if devices[0].platform == 'cpu' else len(devices)      # pretended CPU devices share the same cores
  return Peak(matmul_ceiling(dtype) * chips, f'the best product of {dtype} matrices measured on this {kind}')


def on_datasheet(kind: str) -> float | None:
  """FLOP/s of one device of that kind, or None for one that is not in the table."""
  return next((flops for name, flops in DATASHEET.items() if name.lower() in kind.lower()), None)


def matmul_ceiling(dtype: str = 'float32', size: int | None = None, seconds: float = 0.4) -> float:
  """FLOP/s of a square matrix product on one device: the fastest of as many as fit in `seconds`, at least five.

  The fastest and not the median: what others do on the machine would lower the ceiling and flatter every share of it. So
  a CPU's matrices are no wider than 512: a product of a millisecond finds a moment to itself where 1536 finds none (on a
  busy machine 120 to 230 GFLOP/s against 60 to 130), and on an idle one it is as fast. 8192 elsewhere.
  """
  size = size or (512 if jax.default_backend() == 'cpu' else 8192)
  matrix = jax.jit(lambda key: jax.random.normal(key, (size, size), jnp.dtype(dtype)))(jax.random.key(0))
  product = jax.jit(jnp.matmul)
  jax.block_until_ready(product(matrix, matrix))
  times: list[float] = []
  while len(times) < 5 or sum(times) < seconds:
    begin = time.perf_counter()
    jax.block_until_ready(product(matrix, matrix))
    times.append(time.perf_counter() - begin)
  return 2 * size**3 / min(times)
