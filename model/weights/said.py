"""A published config.json, read field by field with checks: errors name the field that is missing or of another type."""

from dataclasses import dataclass
from typing import Any, TypeVar

from model.config import Activation
from model.errors import DataError

Fields = dict[str, Any]
Kind = TypeVar('Kind', int, float, bool, str)
Part = TypeVar('Part')

ACTIVATIONS: dict[str, Activation] = {'silu': 'silu', 'swish': 'silu', 'gelu': 'gelu', 'gelu_new': 'gelu_tanh', 'relu': 'relu',
                                      'gelu_pytorch_tanh': 'gelu_tanh', 'gelu_fast': 'gelu_tanh', 'relu2': 'relu2'}
WRITTEN = {'silu': 'silu', 'gelu': 'gelu', 'gelu_tanh': 'gelu_pytorch_tanh', 'relu': 'relu', 'relu2': 'relu2'}


@dataclass(frozen=True)
class Said:
  """The fields of one object. `where` names the file."""

  where: str
  fields: dict[str, Any]

  def get(self, name: str, kind: type[Kind], default: Kind | None = None) -> Kind:
    """A field; `default` where it is left out or null. Raises: DataError if it is neither there nor has a default."""
    value = self.fields.get(name)
    value = default if value is None else value
    if kind is float and type(value) is int:
      value = float(value)
    if type(value) is not kind:
      raise DataError('weights.config', f'{self.where}: {name} = {value!r:.60}', f'it is {kind.__name__} in such a file',
                      'mend it, or fetch the folder again')
    return value

  def count(self, name: str, default: int | None = None) -> int:
    """A field that is a positive whole number. Raises: DataError as `get`, and if it is not above zero."""
    value = self.get(name, int, default)
    if value < 1:
      raise DataError('weights.config', f'{self.where}: {name} = {value}', 'there is at least one of them', 'mend it')
    return value

  def has(self, name: str) -> bool:
    """Whether it is there, and not null."""
    return self.fields.get(name) is not None

  def or_else(self, **defaults: Any) -> 'Said':
    """The same, and these where nothing is said."""
    return Said(self.where, self.fields | {name: value for name, value in defaults.items() if not self.has(name)})

  def part(self, name: str) -> 'Said':
    """The object in a field; empty where it is left out."""
    value = self.fields.get(name) or {}
    if not isinstance(value, dict):
      raise DataError('weights.config', f'{self.where}: {name} = {value!r:.60}', 'it is an object in such a file', 'mend it')
    return Said(f'{self.where}: {name}', value)

  def must(self, name: str, *allowed: Any) -> None:
    """Returns where a field is left out or one of these. Raises: DataError."""
    if self.has(name) and self.fields[name] not in allowed:
      known = ' or '.join([*(f'{value!r:.60}' for value in allowed), 'null'])
      raise DataError('weights.unknown', f'{self.where}: {name} = {self.fields[name]!r:.60}', f'known here is {known}',
                      'use another model, or teach this one that switch')


class Unlike(Exception):
  """A model that the files of a family have no words for."""


def only(value: Any, kind: type[Part]) -> Part:
  """The value. Raises: Unlike if it is of another kind."""
  if not isinstance(value, kind):
    raise Unlike
  return value


def activation(said: Said, *fields: str) -> Activation:
  """What is said in the first of these fields that is there."""
  name = next((said.get(field, str) for field in fields if said.has(field)), 'silu')
  if name not in ACTIVATIONS:
    raise DataError('weights.unknown', f'{said.where}: activation {name!r:.40}', f'known are {", ".join(ACTIVATIONS)}',
                    'use another model')
  return ACTIVATIONS[name]
