"""What the gguf package makes of blocks: u8[blocks, bytes] of each type of tensor, by its name."""

import sys

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize


def main(source: str, target: str) -> None:
  with np.load(source) as held, np.errstate(all='ignore'):
    np.savez(target, **{name: dequantize(blocks, GGMLQuantizationType[name]) for name, blocks in held.items()})


if __name__ == '__main__':
  main(*sys.argv[1:])
