"""Settings changed from the command line: `--config.optimizer.rule.lr=3e-4`, checked before anything is computed.

A path names a field of the config, at any depth, parents included: `--config.rows.tokens.vocabulary.size=8192`; a
number names an element of a tuple: `--config.sources.0.weight=2`. A value is read against the field's annotation:

    3e-4  100  true  None  cosine  1,2,3  (1,)  "'quoted, text'"      numbers, words, tuples
    Muon  Muon(lr=0.01)  WSD(warmup=100, decay=0.2)                   one of the classes that the field may hold

Values are literals. Nothing of them is ever evaluated.
"""

import ast
import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from model.errors import ConfigError
from train.artifact import Artifact, digest
from train.typecheck import build, classes, element, fits, hints, require, spell

Tree = dict[str, Any]             # nested by field names; a new value of a field is under the key OWN
OWN = '='                         # cannot be the name of a field
WORDS: dict[str, Any] = {'true': True, 'false': False, 'none': None}


def override(config: Any, changes: Mapping[str, Any]) -> Any:
  """The config with the fields at the dotted paths replaced, all at once. Strings are parsed, other values used as they are.

  Raises: ConfigError that names the flag, and the known fields, the expected type or the allowed range.
  """
  tree: Tree = {}
  for path, value in changes.items():
    node = tree
    for name in path.split('.'):
      node = node.setdefault(name, {})
    node[OWN] = value
  return _apply(config, Any, tree, 'config')


def _apply(value: Any, hint: Any, tree: Tree, path: str) -> Any:
  """`value`, of a field annotated `hint`, with the changes of the tree: its own replacement first, then those of fields."""
  if OWN in tree:
    value = require(read(tree[OWN], hint, path) if isinstance(tree[OWN], str) else tree[OWN], hint, path)
  inner = {name: node for name, node in tree.items() if name != OWN}
  if not inner:
    return value
  if isinstance(value, tuple):
    return _apply_tuple(value, hint, inner, path)
  if not dataclasses.is_dataclass(value):
    options = ' or '.join(classes(hint))
    raise ConfigError('config.no-fields', f'--{path}.{next(iter(inner))}', f'{path} is {value!r}, which has no fields',
                      f'choose one first, as in --{path}=NAME: {options}' if options else f'set --{path} itself')
  known = hints(type(value))
  values = {name: getattr(value, name) for name in known}
  for name, node in inner.items():
    if name not in known:
      deeper = next(within(value, name, f'--{path}'), '')
      raise unknown(f'--{path}.{name}', name, list(known), f'{type(value).__name__} has no such field', deeper)
    values[name] = _apply(values[name], known[name], node, f'{path}.{name}')
  return build(type(value), values, _flags(inner, path))


def _apply_tuple(value: tuple, hint: Any, tree: Tree, path: str) -> tuple:
  items = list(value)
  for name, node in tree.items():
    if not name.isdecimal() or int(name) >= len(items):
      raise ConfigError('config.no-element', f'--{path}.{name}', f'{path} is a tuple of {len(items)}',
                        f'name an element from 0 to {len(items) - 1}' if items else f'set --{path} itself')
    items[int(name)] = _apply(items[int(name)], element(hint, int(name)), node, f'{path}.{name}')
  return tuple(items)


def _flags(tree: Tree, path: str) -> str:
  """The flags of a subtree, for the error message when they are refused together."""
  found = [f'--{path}={tree[OWN]}'] if OWN in tree else []
  return ' '.join(found + [_flags(node, f'{path}.{name}') for name, node in tree.items() if name != OWN])


def within(value: Any, name: str, path: str) -> Iterator[str]:
  """The paths to fields of that name at any depth, but not inside other artifacts: the shallowest first."""
  level = [(path, value)]
  while level:
    inner = [(f'{at}.{field}', getattr(thing, field)) for at, thing in level for field in hints(type(thing))]
    yield from (at for at, _ in inner if at.endswith(f'.{name}'))
    level = [(at, each) for at, each in inner if dataclasses.is_dataclass(each) and not isinstance(each, Artifact)]


def places(value: Any, thing: Artifact, path: str = 'config') -> Iterator[str]:
  """All paths in a config, its parents included, at which this artifact is found; several where it is shared."""
  if isinstance(value, Artifact) and digest(value) == digest(thing):
    yield path
  elif isinstance(value, tuple):
    for index, item in enumerate(value):
      yield from places(item, thing, f'{path}.{index}')
  elif dataclasses.is_dataclass(value):
    for name in hints(type(value)):
      yield from places(getattr(value, name), thing, f'{path}.{name}')


def unknown(what: str, name: str, known: list[str], why: str, deeper: str = '') -> ConfigError:
  """The error for an unknown name, with the three most similar and all known ones; `deeper`: a path that has the name."""
  near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
  meant = f'did you mean {deeper}? Else ' if deeper else ''
  return ConfigError('config.unknown-field', what, f'{why}; the nearest are {", ".join(near)}' if near else why,
                     f'{meant}use one of {", ".join(sorted(known))}')


def read(text: str, hint: Any, path: str) -> Any:
  """The value of a text for a field annotated `hint`: the first of literal, word and plain text that fits."""
  try:
    literal = _value(ast.parse(text.strip(), mode='eval').body, hint, path)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    literal = text
  candidates = (literal, WORDS.get(text.strip().lower(), text), text)
  return next((each for each in candidates if fits(each, hint)), literal)


def _value(node: ast.expr, hint: Any, path: str) -> Any:
  """The value of one literal: a constant, a signed number, a tuple, a word, or a class that the annotation names."""
  match node:
    case ast.Constant(value=value):
      return value
    case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
      return -number
    case ast.Tuple(elts=items) | ast.List(elts=items):
      return tuple(_value(item, element(hint, index), path) for index, item in enumerate(items))
    case ast.Name(id=name) if name in classes(hint):
      return build(classes(hint)[name], {}, f'--{path}={name}')
    case ast.Name(id=name):
      return WORDS.get(name.lower(), name)
    case ast.Call(func=ast.Name(id=name), args=[], keywords=words) if name in classes(hint):
      return _instance(classes(hint)[name], words, path)
  raise ValueError(f'{ast.unparse(node)} is no literal for {spell(hint)}')


def _instance(cls: type, words: list[ast.keyword], path: str) -> Any:
  known = hints(cls)
  flag = f'--{path}={cls.__name__}'
  values = {}
  for word in words:
    name = str(word.arg)
    if name not in known:
      raise unknown(f'{flag}({name}=...)', name, list(known), f'{cls.__name__} has no such field')
    values[name] = require(_value(word.value, known[name], f'{path}.{name}'), known[name], f'{path}.{name}')
  return build(cls, values, flag)
