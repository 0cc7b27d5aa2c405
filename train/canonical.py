"""Configs as JSON and back: what is written into `run.json`, and what a digest is taken of.

Only frozen dataclasses of this project's own rooms, numbers, strings, None, tuples and dicts pass through here, so a
file from a stranger can name nothing that runs.
"""

import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Any

from model.errors import ConfigError
from train.typecheck import build, hints, require

ROOMS = ('kernels', 'model', 'train', 'align', 'serve', 'experiments')


def how(default: Any = dataclasses.MISSING, **kwargs) -> Any:
  """A dataclass field that says how a thing is computed, and so is no part of its digest."""
  return dataclasses.field(default=default, metadata={'identity': False}, **kwargs)


def added(default: Any) -> Any:
  """A dataclass field that was added later: at its default it is left out of the digest, which so stays what it was."""
  return dataclasses.field(default=default, metadata={'added': True})


def encode(value: Any, shorten: Callable[[Any], Any] | None = None) -> Any:
  """The value as JSON, all of it.

  With `shorten` only what changes the mathematics: `how` fields are left out, as are `added` ones at their default, whole
  numbers are ints (RFC 8785 writes 1.0 as 1), and a field's value for which `shorten` gives anything but None is replaced
  by that.

  Raises: ConfigError `config.not-a-value` or `config.not-finite`.
  """
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {'type': f'{type(value).__module__}.{type(value).__qualname__}'} | {
        f.name: _child(getattr(value, f.name), shorten) for f in dataclasses.fields(value)
        if f.init and (shorten is None or _says(f, getattr(value, f.name)))}
  if isinstance(value, tuple | list):
    return [_child(item, shorten) for item in value]
  if isinstance(value, dict) and 'type' not in value and all(isinstance(name, str) for name in value):
    return {name: _child(item, shorten) for name, item in value.items()}
  if isinstance(value, float) and not math.isfinite(value):
    raise ConfigError('config.not-finite', repr(value), 'a setting must be a finite number', 'give a finite number')
  if value is None or isinstance(value, bool | int | str):
    return value
  if isinstance(value, float):
    return int(value) if shorten and value.is_integer() else value
  raise ConfigError('config.not-a-value', f'{value!r} ({type(value).__name__})', 'an experiment is made of numbers, '
                    'strings, None, tuples and frozen dataclasses, so that it can be written down', 'use one of these')


def _says(field: dataclasses.Field, value: Any) -> bool:
  """Whether a field's value belongs to the identity of the thing, and so to its digest."""
  return field.metadata.get('identity', True) and not (field.metadata.get('added', False) and value == field.default)


def _child(value: Any, shorten: Callable[[Any], Any] | None) -> Any:
  short = shorten(value) if shorten else None
  return encode(value, shorten) if short is None else short


def decode(data: Any, path: str = 'config') -> Any:
  """The value that `encode` wrote, each field checked against its annotation before anything is built from it.

  Raises: ConfigError with the dotted path of what is wrong.
  """
  if isinstance(data, list):
    return tuple(decode(item, f'{path}.{index}') for index, item in enumerate(data))
  if not isinstance(data, dict):
    return data
  if 'type' not in data:
    return {name: decode(item, f'{path}.{name}') for name, item in data.items()}
  cls = _dataclass(data['type'], path)
  known = hints(cls)
  values = {}
  for name in (name for name in data if name != 'type'):
    if name not in known:
      raise ConfigError('config.unknown-field', f'{path}.{name}', f'{cls.__name__} has only {", ".join(known)}',
                        'use the version of the code that wrote this file, or remove the field')
    values[name] = require(decode(data[name], f'{path}.{name}'), known[name], f'{path}.{name}')
  return build(cls, values, path)


def _dataclass(kind: Any, path: str) -> type:
  """The class of that name. Nothing outside the rooms is imported, whatever the name says."""
  module, _, name = str(kind).rpartition('.')
  parts = module.split('.')
  cls, why = None, f'it is no frozen dataclass of {", ".join(ROOMS)}'
  if parts[0] in ROOMS and all(part.isidentifier() for part in (*parts, name)):
    try:
      cls = getattr(importlib.import_module(module), name, None)
    except Exception as error:
      why = f'{module} cannot be imported: {error}'
  if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__ == module and _frozen(cls)):
    raise ConfigError('config.unknown-type', f'{path}: type {kind!r}', why, 'use a type of this project, and keep a class of '
                      'your own in a file under experiments/, from where run.json can find it again')
  return cls


def _frozen(cls: type) -> bool:
  return cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
