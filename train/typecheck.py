"""The type check of configs: whether each value fits its annotation, wherever the config comes from.

A config comes from a Python file, from the command line or from a `run.json` that somebody sent. All three pass through
here before anything is built from them.
"""

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union

from model.errors import ConfigError, UserError

LONGEST = 80                            # characters that a message shows of a value


def hints(cls: type) -> dict[str, Any]:
  """The annotation of every field that a config of this class is given: `{'lr': float, ...}`."""
  known = typing.get_type_hints(cls)
  return {f.name: known[f.name] for f in dataclasses.fields(cls) if f.init}


def alternatives(hint: Any) -> tuple[Any, ...]:
  """The members of a union, unions in it opened; an annotation that is none gives itself."""
  if typing.get_origin(hint) in (Union, types.UnionType):
    return tuple(each for member in typing.get_args(hint) for each in alternatives(member))
  return (hint,)


def fits(value: Any, hint: Any) -> bool:
  """Whether the value fits the annotation. A bool is no int, an int is a float; nan and inf are neither."""
  return any(_fits(value, each) for each in alternatives(hint))


def _fits(value: Any, hint: Any) -> bool:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True
  if hint is None or hint is type(None):
    return value is None
  if origin is Literal:
    return any(value == arg and type(value) is type(arg) for arg in args)
  if origin is tuple:
    return isinstance(value, tuple) and _tuple_fits(value, args)
  if origin is dict:
    return isinstance(value, dict) and all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
  if hint is float:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
  if hint is int:
    return isinstance(value, int) and not isinstance(value, bool)
  if getattr(hint, '_is_protocol', False):
    return _is_config(value) and (not getattr(hint, '_is_runtime_protocol', False) or isinstance(value, hint))
  return isinstance(value, origin or hint)


def _tuple_fits(value: tuple, args: tuple) -> bool:
  if len(args) == 2 and args[1] is Ellipsis:
    return all(fits(item, args[0]) for item in value)
  return len(value) == len(args) and all(fits(item, arg) for item, arg in zip(value, args))


def _is_config(value: Any) -> bool:
  return dataclasses.is_dataclass(value) and not isinstance(value, type)


def element(hint: Any, index: int) -> Any:
  """The annotation of a tuple's element; of the first tuple, if the annotation is a union."""
  for each in alternatives(hint):
    args = typing.get_args(each)
    if typing.get_origin(each) is tuple and args:
      return args[0] if args[-1] is Ellipsis else args[min(index, len(args) - 1)]
  return Any


def classes(hint: Any) -> dict[str, type]:
  """The dataclasses that fit the annotation, by name; subclasses that are imported count."""
  found: dict[str, type] = {}
  for each in alternatives(hint):
    if isinstance(each, type) and each is not Any and not getattr(each, '_is_protocol', False):
      family: list[type] = [each]
      children: list[type] = each.__subclasses__()
      family += [cls for child in children for cls in classes(child).values()]
      found |= {cls.__name__: cls for cls in family if dataclasses.is_dataclass(cls)}
  return found


def spell(hint: Any) -> str:
  """The annotation in words for a person: `a finite number`, `AdamW | Muon`, `one of 'a', 'b'`."""
  return ' or '.join(dict.fromkeys(_spell(each) for each in alternatives(hint)))


def _spell(hint: Any) -> str:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is Literal:
    return 'one of ' + ', '.join(repr(arg) for arg in args)
  if origin is tuple:
    many = len(args) == 2 and args[1] is Ellipsis
    return f'a tuple of {spell(args[0])}' if many else f'a tuple ({", ".join(spell(arg) for arg in args)})'
  plain = {float: 'a finite float', int: 'an int', bool: 'True or False', str: 'a str', type(None): 'None'}
  return plain.get(hint) or str(getattr(hint, '__name__', hint))


def check(value: Any, path: str = 'config') -> None:
  """Returns when every field of the tree, at any depth, fits its annotation.

  Raises: ConfigError `config.wrong-type` that names the first field that does not, by its full dotted path.
  """
  if isinstance(value, tuple):
    for index, item in enumerate(value):
      check(item, f'{path}.{index}')
  elif isinstance(value, dict):
    for name, item in value.items():
      check(item, f'{path}.{name}')
  elif _is_config(value):
    for name, hint in hints(type(value)).items():
      check(getattr(value, name), f'{path}.{name}')
      require(getattr(value, name), hint, f'{path}.{name}')


def require(value: Any, hint: Any, path: str) -> Any:
  """The value, an int made a float where only a float is meant.

  Raises: ConfigError `config.wrong-type` where it does not fit, `config.not-finite` for a number that is none.
  """
  if isinstance(value, float) and not math.isfinite(value):
    raise ConfigError('config.not-finite', f'{path} = {value!r}', f'it must be {spell(hint)}', 'give a finite number')
  if not fits(value, hint):
    if isinstance(value, tuple) and _as_long(value, hint):
      for index, item in enumerate(value):
        require(item, element(hint, index), f'{path}.{index}')
    raise ConfigError('config.wrong-type', f'{path} = {_shown(value)} ({type(value).__name__})', f'it must be {spell(hint)}',
                      _instead(value, hint))
  return _settled(value, hint)


def _shown(value: Any) -> str:
  shown = repr(value)
  return shown if len(shown) <= LONGEST else f'{shown[:LONGEST]}...'


def _as_long(value: tuple, hint: Any) -> bool:
  """Whether a tuple of this length fits the annotation, whatever its elements."""
  kinds = [typing.get_args(each) for each in alternatives(hint) if typing.get_origin(each) is tuple]
  return any(args[-1:] == (Ellipsis,) or len(args) == len(value) for args in kinds)


def _instead(value: Any, hint: Any) -> str:
  """The advice for a value that does not fit: the same thing in a form that would fit, if there is one."""
  if isinstance(value, type) or (callable(value) and not _is_config(value)):
    return f'give {value.__name__}(...), with brackets' if hasattr(value, '__name__') else 'give what it returns'
  if isinstance(value, list) and fits(_tupled(value), hint):
    return f'give a tuple: {_shown(_tupled(value))}'
  if fits((value,), hint):
    return f'give ({_shown(value)},): it is the comma that makes a tuple'
  if (number := _number(value, hint)) is not None:
    return f'give {number!r}' + (', without quotes' if isinstance(value, str) else '')
  if isinstance(value, str) and (kind := _concrete(hint, value)):
    return f'give the value itself, {kind}(...), or one that is imported from its file, not a text'
  if isinstance(value, str) and (kind := _concrete(element(hint, 0), value)):
    return f'give a tuple of values, as in ({kind}(...),), not a text'
  if (place := next(_places(value, hint), None)) is not None:
    return f'it is a part of that: give {place}'
  if value is None:
    return 'leave it out for what it is by default, if it has one'
  return 'give a value of that type' + (', as in (1,) or 1,2' if 'a tuple' in spell(hint) else '')


def _tupled(value: Any) -> Any:
  return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _number(value: Any, hint: Any) -> int | float | None:
  """The number that a text, a float with a whole value or another library's number means, where it fits; else None."""
  for kind in (int, float, lambda value: int(float(value))):
    try:
      number = kind(value)
      same = number == (float(value) if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
      continue
    if same and not isinstance(value, bool) and fits(number, hint):
      return number
  return None


def _concrete(hint: Any, meant: str) -> str | None:
  """The name of the fitting class that is most like `meant`; None if no class fits."""
  names = [name for name, cls in classes(hint).items() if not inspect.isabstract(cls)]
  return next(iter([*difflib.get_close_matches(meant, names, n=1), *names]), None)


def _places(value: Any, hint: Any) -> Iterator[str]:
  """Fields of the wanted classes that the value would fit: `Optimizer(rule=AdamW(...))`."""
  for name, cls in classes(hint).items() if _is_config(value) else ():
    for field, inner in hints(cls).items():
      if inner is not Any and not getattr(inner, '_is_protocol', False) and fits(value, inner):
        yield f'{name}({field}={type(value).__name__}(...))'


def _settled(value: Any, hint: Any) -> Any:
  if type(value) is int and not any(_fits(value, each) for each in alternatives(hint) if each is not float):
    return float(value)
  if isinstance(value, tuple):
    return tuple(_settled(item, element(hint, index)) for index, item in enumerate(value))
  return value


def build(cls: type, values: dict[str, Any], path: str) -> Any:
  """`cls(**values)`; what the class itself refuses is reported under the dotted path.

  Raises: ConfigError `config.missing-field`, or the class's own with the path before it.
  """
  for field in dataclasses.fields(cls):
    bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    if field.init and bare and field.name not in values:
      raise ConfigError('config.missing-field', f'{path}.{field.name}', f'{cls.__name__} has no default for it',
                        f'give {field.name}, {spell(hints(cls)[field.name])}')
  try:
    return cls(**values)
  except UserError as error:
    raise type(error)(error.id, f'{path}: {error.what}', error.why, error.do) from error
