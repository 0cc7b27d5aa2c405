"""How a config.json says where tokens stand and how far they see: rotary positions and windows, read and written."""

from collections.abc import Sequence
from typing import Any, Literal

from model.config import Linear, Llama3, Rotary, Window, YaRN
from model.errors import DataError
from model.weights.said import Fields, Said


def rotary(said: Said) -> Rotary:
  """Positions as transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`) writes them, of the whole head.

  Raises: DataError that names a scaling that is not known.
  """
  whole = said.part('rope_parameters')
  scaling = whole if whole.fields else said.part('rope_scaling')
  base = scaling.get('rope_theta', float, said.get('rope_theta', float, 10_000.0))
  for each in (said, scaling):
    each.must('partial_rotary_factor', 1.0)
  return Rotary(base, scaling=_scaling(scaling))


def _scaling(said: Said) -> Linear | Llama3 | YaRN | None:
  kind = said.get('rope_type', str, said.get('type', str, 'default'))
  if kind == 'default':
    return None
  if kind == 'linear':
    return Linear(said.get('factor', float))
  if kind == 'llama3':
    return Llama3(said.get('factor', float), said.get('low_freq_factor', float), said.get('high_freq_factor', float),
                  said.get('original_max_position_embeddings', int))
  if kind == 'yarn':
    for name in ('attention_factor', 'mscale', 'mscale_all_dim'):
      said.must(name)
    said.must('truncate', True)
    return YaRN(said.get('factor', float), said.get('original_max_position_embeddings', int),
                said.get('beta_fast', float, 32.0), said.get('beta_slow', float, 1.0))
  raise DataError('weights.unknown', f'{said.where}: rope_type = {kind!r:.40}', 'known are default, linear, llama3 and yarn',
                  'use another model')


def told(rotary: Rotary) -> Fields:
  """The same as `rope_parameters`."""
  said: Fields = {'rope_theta': rotary.theta, 'rope_type': 'default'}
  if rotary.fraction != 1.0:
    said['partial_rotary_factor'] = rotary.fraction
  match rotary.scaling:
    case Linear(factor):
      said |= {'rope_type': 'linear', 'factor': factor}
    case Llama3(factor, low, high, original):
      said |= {'rope_type': 'llama3', 'factor': factor, 'low_freq_factor': low, 'high_freq_factor': high,
               'original_max_position_embeddings': original}
    case YaRN(factor, original, fast, slow):
      said |= {'rope_type': 'yarn', 'factor': factor, 'original_max_position_embeddings': original, 'beta_fast': fast,
               'beta_slow': slow}
  return said


def partial(said: Said, default: float) -> tuple[Said, float]:
  """What is said as if whole heads turned, and the share of each that does; `default` where that is left out."""
  name, inner = 'partial_rotary_factor', said.part('rope_parameters')
  share = inner.get(name, float, said.get(name, float, default))
  rest = {field: value for field, value in said.fields.items() if field != name}
  whole = {field: value for field, value in inner.fields.items() if field != name}
  return Said(said.where, rest | {'rope_parameters': whole}), share


def window(said: Said, kinds: tuple[str, ...] | None = None) -> Window | None:
  """The window of layers whose kind is sliding, the pattern as short as it can be; None where there is none."""
  if not said.has('sliding_window'):
    return None
  size, layers = said.get('sliding_window', int), said.count('num_hidden_layers')
  named = said.fields.get('layer_types') or kinds or ('sliding_attention',) * layers
  if not isinstance(named, list | tuple) or len(named) != layers:
    raise DataError('weights.config', f'{said.where}: layer_types = {named!r:.60}', f'it names {layers} layers', 'mend it')
  if odd := [kind for kind in named if kind not in ('sliding_attention', 'full_attention')]:
    raise DataError('weights.unknown', f'{said.where}: layer_types {odd[0]!r:.40}', 'known are sliding_attention and '
                    'full_attention', 'use another model')
  pattern: tuple[Literal['local', 'global'], ...] = tuple(
    'local' if kind == 'sliding_attention' else 'global' for kind in named)
  return Window(size, pattern[:period(pattern)]) if 'local' in pattern else None


def period(pattern: Sequence[Any]) -> int:
  """The length of the shortest beginning that, repeated over the layers, gives what is said of each."""
  return next(n for n in range(1, len(pattern) + 1) if all(pattern[i] == pattern[i % n] for i in range(len(pattern))))
