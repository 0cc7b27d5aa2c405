"""The door to products with a matrix in few bits: which kernel multiplies by the codes as they lie, and why none does.

    print(choose(describe(rows, codes, 'bfloat16', cut=False)))      # dequantised (not few: it has not run on a card yet)
    y_MO = lowbit(x_MI, codes, steps, levels, dtype='bfloat16')

Where the door says 'dequantised', the caller makes the matrix and multiplies by it: only it knows how the matrix lies on a
mesh. The codes never learn: gradients go to x alone, from the same codes.

Letters: M rows, I inputs, O outputs, N blocks of inputs, C codes of a block.
"""

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from kernels.choice import Choice

Name = Literal['few', 'many', 'dequantised']

FEW = 16                              # rows up to which a product takes as long as its codes are read
BLOCK = 64                            # codes of a block that the kernels know

UNTRIED = frozenset({'few', 'many'})
"""Kernels that were proved by interpretation and compiled, and that nobody has seen on a card; `many` has also to show that
it beats a matrix that is made and multiplied by cuBLAS."""


class Call(NamedTuple):
  """What decides who multiplies."""

  rows: int
  block: int                          # C; of int8 all inputs
  packed: bool                        # whether two codes share a byte
  dtype: str                          # of the operands of the product
  cut: bool                           # whether the mesh cuts matrices over devices
  platform: str
  capability: float                   # NVIDIA's number; 0 elsewhere


def describe(rows: int, codes: jax.Array | jax.ShapeDtypeStruct, dtype: str, cut: bool) -> Call:
  """The product of so many rows with codes [N, C / 2, O] or [1, I, O], on the machine that is here."""
  platform, packed = jax.default_backend(), codes.dtype == jnp.uint8
  capability = float(getattr(jax.devices()[0], 'compute_capability', 0.0)) if platform == 'gpu' else 0.0
  return Call(rows, codes.shape[1] * (2 if packed else 1), packed, str(dtype), cut, platform, capability)


def choose(call: Call) -> Choice:
  """The kernel for so many rows, unless it was not tried or cannot do the call."""
  name: Name = 'few' if call.rows <= FEW else 'many'
  why = refusal(call) or ('it has not run on a card yet' if name in UNTRIED else None)
  return Choice(name, {}) if why is None else Choice('dequantised', {name: why})


def refusal(call: Call) -> str | None:
  """Why the kernels cannot do the call, or None: a function of the call alone, so that it can be tested without a GPU."""
  facts = {
    f'it runs on NVIDIA GPUs, not on {call.platform}': call.platform != 'gpu',
    f'it needs compute capability 8.0, not {call.capability}': call.capability < 8,
    f'it takes float32 and bfloat16, not {call.dtype}': call.dtype not in ('float32', 'bfloat16'),
    f'it takes blocks of {BLOCK}, not of {call.block}': call.packed and call.block != BLOCK,
    f'it takes at least {BLOCK} inputs, not {call.block}': call.block < BLOCK,
    'the mesh cuts matrices, and it would gather their codes': call.cut,
    'there are no rows': call.rows == 0,
  }
  return next((why for why, holds in facts.items() if holds), None)


def lowbit(x_MI: jax.Array, codes: jax.Array, steps_NO: jax.Array, levels: tuple[float, ...] | None = None, *,
           dtype: Any = None, tiles: Any = None, interpret: bool = False) -> jax.Array:
  """y[M, O] in `dtype` (None: that of x): x in `dtype` times w, by the kernel for so many rows, sums in float32.

  w[i, o] = number(code) * steps[block of i, o]. Codes are u8[N, C / 2, O], two a byte and the first in its high half, or
  i8[1, I, O]. The number of a code is the code itself; of one of 4 bits it is the code less 8, or levels[code]. The
  gradient of x is g times the transpose, made in the same way; codes and steps get none. Rows may be cut over a mesh.
  `tiles` and `interpret` are for tests. Raises: ValueError for shapes that do not fit.
  """
  from kernels.lowbit_triton import Plan  # Pallas takes a quarter of a second, which only those wait who use it
  _check(x_MI, codes, steps_NO)
  x_MI = x_MI if dtype is None else x_MI.astype(dtype)
  matrix = codes.reshape(-1, codes.shape[2]), steps_NO, *([] if levels is None else [jnp.asarray(levels, jnp.float32)])
  return _product(Plan(tiles, interpret), x_MI.shape[1])(x_MI, matrix)


def _check(x_MI, codes, steps_NO):
  inputs = x_MI.shape[-1]
  blocks = (-(-inputs // BLOCK), BLOCK // 2) if codes.dtype == jnp.uint8 else (1, inputs)
  if (x_MI.ndim, codes.ndim) != (2, 3) or codes.shape[:2] != blocks or steps_NO.shape != (blocks[0], codes.shape[2]):
    raise ValueError(f'lowbit of x[M,I] takes u8[N,{BLOCK // 2},O] or i8[1,I,O] and steps[N,O], not of {x_MI.shape} '
                     f'{codes.dtype}{codes.shape} and {steps_NO.shape}')


@lru_cache
def _product(plan, inputs):
  """The call with a gradient; kept, so that traces that are alike are the same to jax."""
  from kernels.lowbit_triton import backward, forward
  push = _mapped(_partitioned(lambda *arrays: forward(plan, *arrays)))
  pull = _mapped(_partitioned(lambda *arrays: backward(plan, inputs, *arrays)))

  @jax.custom_vjp
  def product(x_MI, matrix):
    return push(x_MI, *matrix)

  product.defvjp(lambda x_MI, matrix: (product(x_MI, matrix), matrix), lambda matrix, g_MO: (pull(g_MO, *matrix), None))
  return product


def _partitioned(run):
  """`run` of each device's rows. The door lets no matrix come here that is cut: what it is made of is whole everywhere."""
  def call(*arrays):
    part = custom_partitioning(run)

    def partition(mesh, arguments, results):
      rows, *_ = arguments[0].sharding.spec or (None,)
      cut, whole = (NamedSharding(mesh, P(axis, None)) for axis in (rows, None))
      return mesh, run, cut, (cut, *(whole if each.ndim == 2 else NamedSharding(mesh, P(None)) for each in arrays[1:]))

    operands = ', '.join(('m i', 'k o', 'n o', 'l')[:len(arrays)])
    part.def_partition(partition, sharding_rule=f'{operands} -> m p',
                       need_replication_factors=tuple('ikonlp' if len(arrays) > 3 else 'ikonp'))
    return part(*arrays)

  return call


def _mapped(run):
  """`run` under vmap: what is mapped over joins the rows; mapped matrices take their turns."""
  call = custom_vmap(run)

  @call.def_vmap
  def rule(size, mapped, x_MI, *matrix):
    if any(mapped[1:]) or not mapped[0]:
      spread = [x if each else jnp.broadcast_to(x, (size, *x.shape)) for x, each in zip((x_MI, *matrix), mapped)]
      return jax.lax.map(lambda each: call(*each), spread), True
    return call(x_MI.reshape(-1, x_MI.shape[2]), *matrix).reshape(*x_MI.shape[:2], -1), True

  return call
