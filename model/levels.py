"""What codes of few bits mean: levels, blocks of inputs that share a scale, two codes a byte, scales in 8 bits.

    nf4     16 levels at quantiles of a normal distribution, blocks of 64 inputs scaled by their largest number, and those
            scales in 8 bits (Dettmers et al. 2023): 4.127 bits a weight
    int4    15 even levels around zero, blocks of 64 inputs, scales in float32: 4.5 bits a weight
    int8    255 even levels around zero, one scale for each output: 8 bits a weight and a little

Zero is a level of each, so that what was zero stays zero.

Letters: S dimensions before a matrix (layers, experts), I inputs in one dimension, O outputs, N blocks, C codes of a block.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

Kind = Literal['nf4', 'int4', 'int8']

BLOCK = 64            # inputs that share a scale
GROUP = 256           # scales that share a step
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
WHOLE = {'nf4': 1, 'int4': 7, 'int8': 127}      # the level 1, in steps of the kernels' numbers
LEVELS: dict[str, np.ndarray] = {'nf4': np.array(NF4, np.float32), 'int4': np.arange(-8, 8, dtype=np.float32) / 7}


@struct.dataclass
class Doubled:
  """Scales [*S, N, *O] in 8 bits: mean + codes * steps, a step for every 256 of a matrix's scales as they lie."""

  codes: Any                          # i8[*S, N, *O]
  steps: Any                          # f32[*S, groups]
  mean: Any                           # f32[*S]

  @property
  def value(self) -> jax.Array:
    """The scales, f32[*S, N, *O]; none is below zero."""
    shape, stacked = self.codes.shape, self.mean.ndim
    steps = jnp.repeat(self.steps, GROUP, axis=-1)[..., :math.prod(shape[stacked:])].reshape(shape)
    mean = self.mean.reshape(self.mean.shape + (1,) * (len(shape) - stacked))
    return jnp.maximum(mean + self.codes.astype(jnp.float32) * steps, 0.0)


def double(scales: jax.Array, stacked: int) -> Doubled:
  """Scales [*S, N, *O], none below zero, in 8 bits, after their mean is taken away.

  The mean is that of whole numbers up to 255, which add up to the same sum in any order: how a mesh cuts the scales, or
  how many matrices are done at once, changes no bit.
  """
  flat = scales.reshape(*scales.shape[:stacked], -1)
  most = jnp.max(flat, -1)
  shares = jnp.round(255 * flat / jnp.where(most > 0, most, 1.0)[..., None]).astype(jnp.int32)
  mean = most * (shares.sum(-1).astype(jnp.float32) / (255 * flat.shape[-1]))
  rest = flat - mean[..., None]
  groups = -(-flat.shape[-1] // GROUP)
  grouped = jnp.pad(rest, [(0, 0)] * stacked + [(0, groups * GROUP - flat.shape[-1])])
  steps = jnp.max(jnp.abs(grouped.reshape(*mean.shape, groups, GROUP)), -1) / 127
  wide = jnp.repeat(steps, GROUP, axis=-1)[..., :flat.shape[-1]]
  codes = jnp.round(rest / jnp.where(wide > 0, wide, 1.0)).astype(jnp.int8)
  return Doubled(codes.reshape(scales.shape), steps, mean)


def nearest(x: jax.Array, kind: Kind) -> jax.Array:
  """The code of the level nearest to each x of [-1, 1]; what lies beyond gets the last."""
  if kind == 'int8':
    return jnp.clip(jnp.round(x * 127), -127, 127).astype(jnp.int8)
  middles = (LEVELS[kind][1:] + LEVELS[kind][:-1]) / 2
  return sum((x > middle).astype(jnp.uint8) for middle in middles)   # type: ignore[return-value]


def level(codes: jax.Array, kind: Kind) -> jax.Array:
  """The level of each code, f32 of [-1, 1]."""
  if kind == 'int8':
    return codes.astype(jnp.float32) / 127
  return jnp.asarray(LEVELS[kind]).at[codes].get(mode='promise_in_bounds')


def pack(codes: jax.Array, axis: int) -> jax.Array:
  """Codes below 16 along an axis of even length, two in a byte, the first in the high half."""
  high, low = jnp.moveaxis(codes.reshape(*codes.shape[:axis], -1, 2, *codes.shape[axis + 1:]), axis + 1, 0)
  return (high << 4) | low


def unpack(packed: jax.Array, axis: int) -> jax.Array:
  """What `pack` packed."""
  both = jnp.stack([packed >> 4, packed & 15], axis + 1)
  return both.reshape(*packed.shape[:axis], -1, *packed.shape[axis + 1:])


def in_blocks(w: jax.Array, kind: Kind, inputs: int, stacked: int) -> jax.Array:
  """[*S, *I, *O] -> [*S, N, C, *O]: blocks along the inputs, the last filled with zeros; for int8 all of them as one."""
  outputs = w.shape[stacked + inputs:]
  size = math.prod(w.shape[stacked:stacked + inputs])
  block = size if kind == 'int8' else min(BLOCK, size + size % 2)
  w = w.reshape(*w.shape[:stacked], size, *outputs)
  w = jnp.pad(w, [(0, 0)] * stacked + [(0, -size % block)] + [(0, 0)] * len(outputs))
  return w.reshape(*w.shape[:stacked], -1, block, *outputs)
