"""Things that can be made and found again: a corpus, a tokenizer, a run, a report. Each is a frozen value.

The whole lineage of a thing, from raw text on, is one value, because a parent is a field. A thing is kept in
`<root>/<name>-<digest>/`, where the digest is a sha256 over the canonical JSON of all that changes what comes out; fields
made with `how(...)` say only how it is computed (mesh, parts, kernels, how often to print) and stay out of it.
"""

import dataclasses
import hashlib
import importlib
import json
import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ConfigError, DataError

ROOMS = ('kernels', 'model', 'train', 'align', 'serve', 'experiments')
MADE = 'made.json'      # written last: a folder that has it is whole


def how(default: Any = dataclasses.MISSING, **kwargs) -> Any:
  """A dataclass field that says how a thing is computed and is no part of what it is."""
  return dataclasses.field(default=default, metadata={'identity': False}, **kwargs)


@dataclass(frozen=True, kw_only=True)
class Artifact:
  """What can be made in a folder of its own, from its fields and its parents alone."""

  name: str = how()

  @abstractmethod
  def make(self, folder: Path, store: 'Store') -> None:
    """Makes it in `folder`, which exists and may hold the remains of a try that was cut off. Its parents are made."""


def encode(value: Any, identity: bool = False) -> Any:
  """The value as JSON. With `identity`, only what changes the mathematics, and parents by their digest."""
  if isinstance(value, type) or callable(value) and not dataclasses.is_dataclass(value):
    raise ConfigError('config.not-a-value', repr(value), 'an experiment is made of values, not of functions or classes',
                      'use a frozen dataclass of this project')
  if dataclasses.is_dataclass(value):
    kind = f'{type(value).__module__}.{type(value).__qualname__}'
    fields = [f for f in dataclasses.fields(value) if not identity or f.metadata.get('identity', True)]
    return {'type': kind} | {f.name: _child(getattr(value, f.name), identity) for f in fields}
  if isinstance(value, tuple | list):
    return [_child(item, identity) for item in value]
  if isinstance(value, dict):
    return {str(name): _child(item, identity) for name, item in value.items()}
  if isinstance(value, Path):
    return str(value)
  if isinstance(value, float) and not math.isfinite(value):
    raise ConfigError('config.not-finite', repr(value), 'a setting must be a finite number', 'give a finite number')
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise ConfigError('config.not-a-value', f'{value!r} of type {type(value).__name__}',
                    'only numbers, strings, None, tuples, dicts and frozen dataclasses can be kept', 'use one of these')


def _child(value: Any, identity: bool) -> Any:
  return {'digest': digest(value)} if identity and isinstance(value, Artifact) else encode(value, identity)


def decode(data: Any) -> Any:
  """The value that `encode` wrote. Only frozen dataclasses of this project's own rooms are ever made."""
  if isinstance(data, list):
    return tuple(decode(item) for item in data)
  if not isinstance(data, dict):
    return data
  if 'type' not in data:
    return {name: decode(item) for name, item in data.items()}
  cls = _dataclass(data['type'])
  names = {f.name for f in dataclasses.fields(cls)}
  unknown = sorted(set(data) - names - {'type'})
  if unknown:
    raise ConfigError('config.unknown-field', f'{data["type"]}.{unknown[0]}', f'it has only {", ".join(sorted(names))}',
                      'use the version of the code that wrote this file, or remove the field')
  return cls(**{name: decode(item) for name, item in data.items() if name != 'type'})


def _dataclass(kind: str) -> type:
  module, _, name = str(kind).rpartition('.')
  parts = module.split('.')
  cls = None
  if parts[0] in ROOMS and all(part.isidentifier() for part in (*parts, name)):
    try:
      cls = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError:
      pass
  if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__ == module):
    raise ConfigError('config.unknown-type', f'type {kind!r}', f'it is no dataclass of {", ".join(ROOMS)}',
                      'use a type of this project')
  return cls


def digest(value: Any) -> str:
  """sha256, in hex, of what the value is: the canonical JSON of its identity."""
  text = json.dumps(encode(value, identity=True), sort_keys=True, separators=(',', ':'), ensure_ascii=False)
  return hashlib.sha256(text.encode()).hexdigest()


def parents(value: Any) -> Iterator[Artifact]:
  """The artifacts that a value is made from: those in its fields, at any depth, but not theirs."""
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    value = tuple(getattr(value, f.name) for f in dataclasses.fields(value))
  for item in value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ():
    if isinstance(item, Artifact):
      yield item
    else:
      yield from parents(item)


def lineage(artifact: Artifact) -> list[Artifact]:
  """The artifact and all that it comes from, parents first, each once."""
  order: dict[str, Artifact] = {}

  def visit(thing: Artifact):
    for parent in parents(thing):
      visit(parent)
    order.setdefault(digest(thing), thing)

  visit(artifact)
  return list(order.values())


@dataclass(frozen=True)
class Store:
  """The folder where things are kept, one folder a thing."""

  root: Path

  def folder(self, artifact: Artifact) -> Path:
    """Where the artifact is, or would be."""
    return Path(self.root) / f'{artifact.name}-{digest(artifact)[:10]}'

  def made(self, artifact: Artifact) -> bool:
    """Whether it is there and whole."""
    return (self.folder(artifact) / MADE).exists()

  def find(self, artifact: Artifact) -> Path:
    """The folder of an artifact that is made.

    Raises: DataError if it is not.
    """
    if not self.made(artifact):
      raise DataError('store.not-made', str(self.folder(artifact)), f'{artifact.name} is not made yet', 'launch it first')
    return self.folder(artifact)

  def make(self, artifact: Artifact) -> Path:
    """Makes whatever of the lineage is missing, parents first, and gives the artifact's folder."""
    for thing in lineage(artifact):
      if not self.made(thing):
        folder = self.folder(thing)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / 'run.json', encode(thing))
        thing.make(folder, self)
        write_json(folder / MADE, {'digest': digest(thing), 'name': thing.name})
    return self.folder(artifact)


def write_json(path: Path, data: Any) -> None:
  """Writes the file whole or not at all."""
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(json.dumps(data, indent=1, ensure_ascii=False) + '\n')
  temporary.replace(path)
