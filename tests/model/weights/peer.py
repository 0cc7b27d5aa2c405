"""Writes peer.gguf and peer.npz beside it with the `gguf` package (0.19.0): every type of value and of tensor that we read.

It is run by the Python of an environment that has the package: `python tests/model/weights/peer.py`. Blocks of types for which
the package has no quantiser are random bits with scales of a sensible size; the last block of every tensor is of random bits
alone, infinities and what is no number among its scales.
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Value
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize

HERE = Path(__file__).parent
TYPES = (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q4_K, Type.Q6_K)
SCALES = {Type.Q4_K: (0, 2), Type.Q6_K: (208,)}              # bytes of a block at which a float16 begins


def blocks(kind: Type, rng: np.random.Generator) -> np.ndarray:
  """u8[2, 2 blocks or 32 numbers]."""
  size, width = GGML_QUANT_SIZES[kind]
  row = 2 * size if size > 1 else 32
  random = rng.integers(0, 256, (2, row // size * width), np.uint8)
  if kind in SCALES:
    made = random.copy().reshape(-1, width)
    for at in SCALES[kind]:
      made[:, at:at + 2] = rng.normal(0, 0.01, (len(made), 1)).astype('<f2').view(np.uint8)
    made = made.reshape(random.shape)
  else:
    made = quantize(rng.normal(0, 0.02, (2, row)).astype(np.float32), kind).view(np.uint8)
  made[-1, -width:] = random[-1, -width:]
  return made


def q8_0() -> np.ndarray:
  """f32[N, 32]: of every size, halves that are exactly that, a hair under a half, and nothing."""
  rng = np.random.default_rng(1)
  usual = rng.normal(0, 1, (6, 32)) * np.array([[1], [1e-3], [1e-6], [1e-20], [30], [8e6 / 4]])
  halves = np.concatenate([[127], np.arange(-15.5, 15.5), ])[None]
  under = np.array([[127, 0.49999997, -0.49999997, 2.4999998, *np.zeros(28)]])
  return np.concatenate([usual, halves, under, -halves, np.zeros((1, 32))]).astype(np.float32)


def write(path: Path) -> dict[str, np.ndarray]:
  writer = GGUFWriter(path, 'peer')
  writer.add_custom_alignment(64)
  for number, kind in enumerate((Value.UINT8, Value.INT8, Value.UINT16, Value.INT16, Value.UINT32, Value.INT32, Value.UINT64,
                                 Value.INT64, Value.FLOAT32, Value.FLOAT64)):
    writer.add_key_value(kind.name, number + 100, kind)
    writer.add_key_value(f'{kind.name}s', [number, number + 1], Value.ARRAY, sub_type=kind)
  writer.add_bool('BOOL', True)
  writer.add_array('BOOLs', [True, False])
  writer.add_string('STRING', 'Ġ ▁ é')
  writer.add_array('STRINGs', ['', 'Ġthe', '▁'])
  writer.add_array('nested', [[1, 2], [3]])
  rng, expected = np.random.default_rng(0), {}
  with np.errstate(all='ignore'):
    for kind in TYPES:
      stored = blocks(kind, rng)
      writer.add_tensor(kind.name, stored, raw_dtype=kind)
      expected[kind.name] = dequantize(stored, kind)
  for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()
  return expected


if __name__ == '__main__':
  np.savez_compressed(HERE / 'peer.npz', given=q8_0(), quantized=quantize(q8_0(), Type.Q8_0), **write(HERE / 'peer.gguf'))
