"""GGUF files for tests: one as a converter would write it, headers byte by byte, and the memory that reading takes."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np

from model.weights.gguf_writing import write_gguf
from model.weights.tensor import Tensor

HERE = Path(__file__).parent
PEER = HERE / 'peer.gguf'                    # by the gguf package: see peer.py
METADATA = {'general.architecture': 'llama', 'llama.block_count': 2, 'llama.rope.freq_base': 1e4, 'add_bos_token': True,
            'tokenizer.ggml.tokens': ['<s>', 'Ġthe', '', '▁'], 'tokenizer.ggml.token_type': np.array([3, 1, 1, 1], np.int32),
            'tokenizer.ggml.scores': [0.0, -1.5], 'big': np.uint64(2**40), 'none': [], 'flags': [True, False], 'few': [7, 8]}


def tensor(name, x):
  return Tensor(name, x.shape, x.dtype, lambda slices: x[slices])


def arrays():
  """A vector, matrices that blocks divide and do not, three dimensions, and one that makes a file larger than its header."""
  rng = np.random.default_rng(0)
  shapes = {'norm': (40,), 'matrix': (7, 96), 'odd': (5, 33), 'experts': (2, 3, 64), 'large': (96, 512)}
  return {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}


def written(path, kind='Q8_0', metadata=METADATA):
  write_gguf(path, metadata, [tensor(name, x) for name, x in arrays().items()], kind)
  return path


def u32(*numbers):
  return struct.pack(f'<{len(numbers)}I', *numbers)


def u64(*numbers):
  return struct.pack(f'<{len(numbers)}Q', *numbers)


def text(data):
  return u64(len(data)) + data


def entry(name=b'x', shape=(32,), code=0, begin=0):
  return text(name) + u32(len(shape)) + u64(*shape) + u32(code) + u64(begin)


def file(pairs=(), tensors=(), data=bytes(128), counts=None):
  """Each of `pairs` is a key, a type and bytes."""
  header = b'GGUF' + u32(3) + u64(*(counts or (len(tensors), len(pairs))))
  header += b''.join(text(key) + u32(code) + value for key, code, value in pairs) + b''.join(tensors)
  return header + bytes(-len(header) % 32) + data


def deep(depth):
  return u32(9) + u64(1) + deep(depth - 1) if depth else u32(0) + u64(1) + b'\7'


def peak(call):
  """The most bytes that Python and numpy held at once while it ran."""
  tracemalloc.start()
  try:
    call()
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


def header_of(data):
  """Bytes of the header of what `written` writes: the last tensor's name, two sizes, and three numbers more."""
  return data.index(b'large') + len(b'large') + 4 + 2 * 8 + 4 + 8
