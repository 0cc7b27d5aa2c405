"""What the gguf package reads in files: metadata, and the numbers of each tensor beside those that it would write for it."""

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import quantize


def main(source: str, target: str) -> None:
  with np.load(source) as held:
    given = dict(held)
  found = {}
  for path in map(Path, given.pop('paths')):
    reader = GGUFReader(path)
    for key, field in reader.fields.items():
      found[f'{path.stem}/value/{key}'] = np.array(field.contents())
      found[f'{path.stem}/types/{key}'] = np.array([kind.name for kind in field.types])
    found[f'{path.stem}/begin'] = np.array(reader.data_offset)
    found[f'{path.stem}/tensors'] = np.array([each.name for each in reader.tensors])
    for each in reader.tensors:
      found[f'{path.stem}/shape/{each.name}'] = each.shape[::-1]
      found[f'{path.stem}/place/{each.name}'] = np.array([each.data_offset, each.n_bytes])
      found[f'{path.stem}/type/{each.name}'] = np.array(each.tensor_type.name)
      found[f'{path.stem}/read/{each.name}'] = np.frombuffer(each.data.tobytes(), np.uint8)
      found[f'{path.stem}/wanted/{each.name}'] = np.frombuffer(quantize(given[each.name], each.tensor_type).tobytes(), np.uint8)
  np.savez(target, **found)


if __name__ == '__main__':
  main(*sys.argv[1:])
