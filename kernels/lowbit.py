"""Matmul with a quantised weight matrix (int8 or 4 bits), read as codes: the entry point, and the choice of a kernel.

    y[m, o] = sum_i x[m, i] number(code[i, o]) step[block of i, o]

    print(choose(describe(rows, codes, 'bfloat16')))      # dequantised (not few: it has not run on a card yet)
    y_MO = lowbit(x_MI, codes, steps, levels, dtype='bfloat16')

A step is the scale of a block of inputs. Where `choose` says 'dequantised', the caller has to dequantise the matrix and
multiply by it. Codes and steps are frozen: only x gets a gradient.

Letters: M rows, I inputs, O outputs, N blocks of inputs, C codes of a block.
"""

import math
import re
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from kernels.choice import Choice, devices

Name = Literal['few', 'many', 'grouped', 'tpu', 'dequantised']

FEW = 16                              # most rows for which a product is bound by the reading of the codes
BLOCK = 64                            # the block size that the kernels support

UNTRIED = frozenset({'few', 'many', 'grouped', 'tpu'})
"""Kernels that passed their tests in interpret mode and compile, and have never run on hardware. There `many` must also beat
cuBLAS with a dequantised matrix, `grouped` ragged_dot with dequantised matrices, and `tpu` XLA with a dequantised matrix."""


class Call(NamedTuple):
  """The static facts of a call by which a kernel is chosen."""

  rows: int
  block: int                          # C; all inputs for int8
  packed: bool                        # whether two codes share a byte
  dtype: str                          # of the operands of the product
  platform: str
  capability: float                   # NVIDIA's number, or the generation of a TPU; 0 elsewhere
  groups: int = 0                     # matrices of a grouped product (kernels.lowbit_grouped); 0: one matrix for all rows
  devices: int = 1                    # over which the compiler partitions it


def describe(rows: int, codes: jax.Array | jax.ShapeDtypeStruct, dtype: str, groups: int = 0) -> Call:
  """The call of `rows` rows with codes [N, C / 2, *O] or [1, I, *O], of `groups` such matrices, on this machine."""
  platform, packed = jax.default_backend(), codes.dtype == jnp.uint8
  return Call(rows, codes.shape[1] * (2 if packed else 1), packed, str(dtype), platform, _capability(jax.devices()[0]), groups,
              devices())


def _capability(device: Any) -> float:
  generation = re.match(r'TPU ?v?(\d+)', device.device_kind)
  return float(generation[1] if generation else getattr(device, 'compute_capability', 0.0))


def choose(call: Call) -> Choice:
  """The kernel for this number of rows; 'dequantised' if it cannot do the call or has not run on hardware yet."""
  name: Name = 'grouped' if call.groups else 'tpu' if call.platform == 'tpu' else 'few' if call.rows <= FEW else 'many'
  why = refusal(call) or ('it has not run on a card yet' if name in UNTRIED else None)
  return Choice(name, {}) if why is None else Choice('dequantised', {name: why})


def refusal(call: Call) -> str | None:
  """Why the kernels cannot do the call, or None: a function of the call alone, so that it can be tested without the chip."""
  tpu = call.platform == 'tpu' and not call.groups
  facts = {
    f'it runs on NVIDIA GPUs, not on {call.platform}': call.platform != 'gpu' and not tpu,
    f'it needs compute capability 8.0, not {call.capability}': call.platform == 'gpu' and call.capability < 8,
    f'it looks up codes of 4 bits on TPU v5 and later, not v{call.capability:.0f}': tpu and call.packed and call.capability < 5,
    f'libtpu asks nobody how to cut it over {call.devices} devices': tpu and call.devices > 1,
    f'it takes float32 and bfloat16, not {call.dtype}': call.dtype not in ('float32', 'bfloat16'),
    f'it takes blocks of {BLOCK}, not of {call.block}': call.packed and call.block != BLOCK,
    f'it takes at least {BLOCK} inputs, not {call.block}': call.block < BLOCK,
    'there are no rows': call.rows == 0,
  }
  return next((why for why, holds in facts.items() if holds), None)


def lowbit(x_MI: jax.Array, codes: jax.Array, steps_NO: jax.Array, levels: tuple[float, ...] | None = None, *,
           dtype: Any = None, platform: str | None = None, tiles: Any = None, interpret: bool = False) -> jax.Array:
  """y[*M, *O] in `dtype` (None: that of x): x, cast to `dtype`, times w, by the kernel for this number of rows.

  w[i, *o] = number(code) * steps[block of i, *o]. Codes are u8[N, C / 2, *O], two a byte with the first in its high half, or
  i8[1, I, *O]. number(code) is the code itself for int8; for 4 bits it is levels[code], or without levels the code less 8. Sums
  are float32. The gradient of x is g times w transposed, by a kernel too; codes and steps get none. On a mesh the operands may
  be sharded as kernels.lowbit_mesh says. `platform` (None: this one), `tiles` and `interpret` are for tests.

  Raises: ValueError for shapes that do not fit.
  """
  kernels = _kernels(platform or jax.default_backend())
  fit(x_MI, codes, steps_NO)
  x_MI = padded(x_MI if dtype is None else x_MI.astype(dtype), codes.dtype)
  matrix = codes, steps_NO, *([] if levels is None else [jnp.asarray(levels, jnp.float32)])
  return _product(kernels, kernels.Plan(tiles, interpret))(x_MI.reshape(*x_MI.shape[:-1], len(codes), -1), matrix)


def fit(x_MI: jax.Array, codes: jax.Array, steps_NO: jax.Array) -> None:
  """Raises: ValueError for shapes that do not fit."""
  inputs = x_MI.shape[-1]
  blocks = (-(-inputs // BLOCK), BLOCK // 2) if codes.dtype == jnp.uint8 else (1, inputs)
  if codes.ndim < 3 or codes.shape[:2] != blocks or steps_NO.shape != (blocks[0], *codes.shape[2:]):
    raise ValueError(f'lowbit of x[..,I] takes u8[N,{BLOCK // 2},..] or i8[1,I,..] and steps[N,..], not of {x_MI.shape} '
                     f'{codes.dtype}{codes.shape} and {steps_NO.shape}')


def padded(x_MI: jax.Array, codes: Any) -> jax.Array:
  """x, zero-padded to whole blocks of inputs; `codes` is the dtype of the codes."""
  return jnp.pad(x_MI, [(0, 0)] * (x_MI.ndim - 1) + [(0, -x_MI.shape[-1] % BLOCK if codes == jnp.uint8 else 0)])


def _kernels(platform):
  """The module of kernels for a platform, imported late: importing Pallas takes a quarter of a second."""
  if platform == 'tpu':
    from kernels import lowbit_tpu
    return lowbit_tpu
  from kernels import lowbit_triton
  return lowbit_triton


@lru_cache
def _product(kernels, plan):
  """The call with its gradient. Cached: equal arguments give the same function, so jax does not trace it again."""
  from kernels.lowbit_mesh import spread
  push = _mapped(spread(partial(_forward, kernels, plan), backward=False))
  pull = _mapped(spread(partial(_backward, kernels, plan), backward=True))

  @jax.custom_vjp
  def product(x_MNC, matrix):
    return push(x_MNC, *matrix)

  def gradient(matrix, g_MO):
    g_MO, matrix = jax.lax.optimization_barrier((g_MO, matrix))    # else XLA keeps the codes that the forward pass gathered
    return pull(g_MO, *matrix), None

  product.defvjp(lambda x_MNC, matrix: (product(x_MNC, matrix), matrix), gradient)
  return product


def _forward(kernels, plan, dtype, x_MNC, *matrix):
  """y[*M, *O], of the part that one device holds."""
  x_MI = x_MNC.reshape(-1, math.prod(x_MNC.shape[-2:]))
  return kernels.forward(plan, dtype, x_MI, *_flat(*matrix)).reshape(*x_MNC.shape[:-2], *matrix[0].shape[2:])


def _backward(kernels, plan, dtype, g_MO, *matrix):
  """dx[*M, N, C], of the part that one device holds."""
  codes, steps_NO, *_ = matrix
  outputs = codes.ndim - 2
  g = g_MO.reshape(-1, math.prod(codes.shape[2:]))
  dx_MI = kernels.backward(plan, dtype, g, *_flat(*matrix))
  return dx_MI.reshape(*g_MO.shape[:g_MO.ndim - outputs], steps_NO.shape[0], -1)


def _flat(codes, steps_NO, *levels):
  """Codes and steps with their output dimensions flattened to one."""
  outputs = math.prod(codes.shape[2:])
  return codes.reshape(-1, outputs), steps_NO.reshape(-1, outputs), *levels


def _mapped(run):
  """`run` with a rule for vmap: a mapped x gets more rows; mapped matrices are multiplied one after another."""
  call = custom_vmap(run)

  @call.def_vmap
  def rule(size, mapped, x_MNC, *matrix):
    if any(mapped[1:]) or not mapped[0]:
      spread = [x if each else jnp.broadcast_to(x, (size, *x.shape)) for x, each in zip((x_MNC, *matrix), mapped)]
      return jax.lax.map(lambda each: call(*each), spread), True
    return call(x_MNC, *matrix), True

  return call
