"""The forms in which GGUF files hold numbers: as they are, or in blocks of a few bits a number with scales of their own.

A block is a numpy type, so that an array of blocks is sliced before it is read. Its numbers are d q, or d q + m, where q is a
whole number of few bits; d and m are the block's (Q8_0, Q4_0, Q4_1), or have for every 16 or 32 numbers a factor of their own
(Q4_K, Q6_K). Which bit is where, and the order of products and sums, is that of llama.cpp's ggml-quants.c, so that results are
equal to the bit. Letters: N blocks, S numbers of a block.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LARGEST_F16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Format:
  """`read` makes f32[..., S] of blocks [...]; `code` is its number in a file."""

  name: str
  code: int
  size: int
  block: np.dtype
  read: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Writing:
  """`write` makes blocks [N] of f32[N, S], no number of which is beyond `largest`."""

  format: Format
  largest: float
  write: Callable[[np.ndarray], np.ndarray]


def _plain(block: np.ndarray) -> np.ndarray:
  return block.astype(np.float32)[..., None]


def _bf16(block: np.ndarray) -> np.ndarray:
  return (block.astype(np.uint32) << 16).view(np.float32)[..., None]


def _scale(d: np.ndarray) -> np.ndarray:
  return d.astype(np.float32)[..., None]


def _split(packed: np.ndarray, bits: int) -> np.ndarray:
  """u8[..., n] -> u8[..., 8 / bits, n]: the lowest bits of all bytes, then the next ones."""
  shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
  return (packed[..., None, :] >> shifts) & np.uint8((1 << bits) - 1)


def _rows(x: np.ndarray, length: int) -> np.ndarray:
  """The last dimensions of x, one block's, in rows of this length."""
  return x.reshape(*x.shape[:-3], math.prod(x.shape[-3:]) // length, length)


def _q8_0(block: np.ndarray) -> np.ndarray:
  x = block['q'].astype(np.float32)
  x *= _scale(block['d'])
  return x


def _q4_0(block: np.ndarray) -> np.ndarray:
  x = _split(block['q'], 4).reshape(*block.shape, 32).astype(np.float32)
  x -= 8
  x *= _scale(block['d'])
  return x


def _q4_1(block: np.ndarray) -> np.ndarray:
  x = _split(block['q'], 4).reshape(*block.shape, 32).astype(np.float32)
  x *= _scale(block['d'])
  x += _scale(block['m'])
  return x


def _scales_and_minima(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """u8[..., 3, 4] -> two of u8[..., 8], of 6 bits: the first four whole, the others' two high bits above those."""
  scale, minimum, low = packed[..., 0, :], packed[..., 1, :], packed[..., 2, :]
  return (np.concatenate([scale & 63, low & 15 | scale >> 2 & 48], -1),
          np.concatenate([minimum & 63, low >> 4 | minimum >> 2 & 48], -1))


def _q4_k(block: np.ndarray) -> np.ndarray:
  scale, minimum = _scales_and_minima(block['scales'])
  x = _rows(_split(block['q'], 4), 32).astype(np.float32)
  x *= (_scale(block['d']) * scale.astype(np.float32))[..., None]
  x -= (_scale(block['dmin']) * minimum.astype(np.float32))[..., None]
  return x.reshape(*block.shape, 256)


def _q6_k(block: np.ndarray) -> np.ndarray:
  q = _rows(_split(block['low'], 4), 32) | _rows(_split(block['high'], 2), 32) << 4
  x = q.reshape(*block.shape, 16, 16).astype(np.float32)
  x -= 32
  x *= (_scale(block['d']) * block['scales'].astype(np.float32))[..., None]
  return x.reshape(*block.shape, 256)


F32 = Format('F32', 0, 1, np.dtype('<f4'), _plain)
F16 = Format('F16', 1, 1, np.dtype('<f2'), _plain)
BF16 = Format('BF16', 30, 1, np.dtype('<u2'), _bf16)
Q8_0 = Format('Q8_0', 8, 32, np.dtype([('d', '<f2'), ('q', 'i1', 32)]), _q8_0)
Q4_0 = Format('Q4_0', 2, 32, np.dtype([('d', '<f2'), ('q', 'u1', 16)]), _q4_0)
Q4_1 = Format('Q4_1', 3, 32, np.dtype([('d', '<f2'), ('m', '<f2'), ('q', 'u1', 16)]), _q4_1)
Q4_K = Format('Q4_K', 12, 256, np.dtype([('d', '<f2'), ('dmin', '<f2'), ('scales', 'u1', (3, 4)), ('q', 'u1', (4, 32))]), _q4_k)
Q6_K = Format('Q6_K', 14, 256, np.dtype([('low', 'u1', (2, 64)), ('high', 'u1', (2, 32)), ('scales', 'i1', 16), ('d', '<f2')]),
              _q6_k)
FORMATS = {format.code: format for format in (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K)}


def quantize_q8_0(x_NS: np.ndarray) -> np.ndarray:
  """Blocks [N] of f32[N, 32]: d the largest |x| / 127, q the nearest whole number to x / d, halves away from zero.

  As llama.cpp's quantize_row_q8_0_ref has it: q is found with d in float32, and d is stored in float16.
  """
  d_N = np.abs(x_NS).max(1) / np.float32(127)
  with np.errstate(divide='ignore', over='ignore'):
    inverse_N = 1 / d_N
  inverse_N[np.isinf(inverse_N)] = 0                       # d is zero in float16, whatever q is
  scaled_NS = x_NS * inverse_N[:, None]
  block_N = np.empty(len(x_NS), Q8_0.block)
  block_N['d'] = d_N
  whole_NS = np.trunc(scaled_NS)                           # adding a half instead would round 0.49999997 up
  block_N['q'] = whole_NS + np.copysign(np.abs(scaled_NS - whole_NS) >= 0.5, scaled_NS)
  return block_N


WRITING = {writing.format.name: writing for writing in (
  Writing(F32, float(np.finfo(np.float32).max), lambda x_NS: x_NS[:, 0].astype('<f4')),
  Writing(F16, LARGEST_F16, lambda x_NS: x_NS[:, 0].astype('<f2')),
  Writing(Q8_0, 127 * LARGEST_F16, quantize_q8_0))}
