"""A folder as Hugging Face lays it: config.json beside one safetensors file, or several with an index."""

import json
from pathlib import Path
from typing import Any

from model.errors import DataError
from model.weights.safetensors import open_safetensors, write_safetensors
from model.weights.tensor import Tensor, Tensors

CONFIG, SINGLE, INDEX = 'config.json', 'model.safetensors', 'model.safetensors.index.json'
SHARD = 5 * 10**9                 # bytes of a file at most, but for a tensor that has more by itself


def open_tensors(folder: Path) -> Tensors:
  """All tensors of a folder. Raises: DataError where files and index do not agree, or a file is not what it says."""
  if not (folder / INDEX).exists():
    _must_exist(folder, SINGLE)
    return open_safetensors(folder / SINGLE)
  places = _index(folder / INDEX)
  files = {name: open_safetensors(folder / name) for name in sorted(set(places.values()))}
  for file, tensors in files.items():
    told = {name for name, place in places.items() if place == file}
    if odd := sorted(told ^ tensors.keys()):
      raise DataError('weights.index', f'{folder / INDEX}: {file}: {", ".join(odd[:3])}', 'index and file hold other tensors: '
                      f'{len(odd)} names are in one of them alone', 'fetch the folder again')
  return {name: files[place][name] for name, place in places.items()}


def read_config(folder: Path) -> dict[str, Any]:
  """What config.json says. Raises: DataError if it is missing or no object."""
  return read_object(folder / CONFIG)


def read_object(path: Path) -> dict[str, Any]:
  """The object in a file of JSON. Raises: DataError if there is none."""
  _must_exist(path.parent, path.name)
  try:
    said = json.loads(path.read_text(encoding='utf-8'))
  except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
    raise DataError('weights.bad-json', str(path), f'it is no JSON: {error}', 'fetch the folder again') from None
  if not isinstance(said, dict):
    raise DataError('weights.bad-json', str(path), 'it holds no object', 'fetch the folder again')
  return said


def _must_exist(folder: Path, name: str) -> None:
  if not (folder / name).is_file():
    there = ', '.join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else 'no such folder'
    raise DataError('weights.missing', str(folder / name), f'the folder has {there or "nothing"}', _advice(folder, name))


def _advice(folder: Path, name: str) -> str:
  """What to do where this file is missing."""
  if any(folder.glob('*.safetensors')):
    return f'the weights lie in several files: fetch their {INDEX} too' if name == SINGLE else 'fetch it too, into this folder'
  if any(folder.glob('*.bin')) or any(folder.glob('*.pth')):
    return 'what is pickled is never loaded: convert it to safetensors'
  return 'check the path'


def _index(path: Path) -> dict[str, str]:
  """Of each tensor the file that has it, a plain name within the folder."""
  places = read_object(path).get('weight_map')
  if not isinstance(places, dict) or not places:
    raise DataError('weights.index', f'{path}: weight_map', 'it is missing or empty', 'fetch the folder again')
  for name, place in places.items():
    if not isinstance(place, str) or Path(place).name != place or '\\' in place or not place.endswith('.safetensors'):
      raise DataError('weights.index', f'{path}: {name!r:.60} lies in {place!r:.60}', 'a file of the same folder that ends in '
                      '.safetensors is meant', 'do not use this folder, or mend its index')
    if (path.parent / place).resolve().parent != path.parent.resolve() and not _cached(path, place):
      raise DataError('weights.index', f'{path}: {place!r:.60} is a link out of the folder', 'it could be any file',
                      'put the file itself there')
    _must_exist(path.parent, place)
  return places


def _cached(path: Path, place: str) -> bool:
  """Whether the file is a link as hubs lay them: both point into one folder of blobs."""
  return path.is_symlink() and path.resolve().parent == (path.parent / place).resolve().parent


def write_tensors(folder: Path, tensors: list[Tensor], shard: int = SHARD) -> None:
  """Writes one file, or as many as it takes with an index, each of at most `shard` bytes."""
  files: list[list[Tensor]] = [[]]
  for tensor in tensors:
    if files[-1] and sum(map(size, files[-1])) + size(tensor) > shard:
      files.append([])
    files[-1].append(tensor)
  if len(files) == 1:
    write_safetensors(folder / SINGLE, files[0])
    return
  places: dict[str, str] = {}
  for number, file in enumerate(files, 1):
    name = f'model-{number:05d}-of-{len(files):05d}.safetensors'
    write_safetensors(folder / name, file)
    places |= {tensor.name: name for tensor in file}
  text = json.dumps({'metadata': {'total_size': sum(map(size, tensors))}, 'weight_map': places}, indent=2)
  (folder / INDEX).write_text(text, encoding='utf-8')


def size(tensor: Tensor) -> int:
  """Bytes."""
  count = tensor.dtype.itemsize
  for length in tensor.shape:
    count *= length
  return count
