"""Reads limits of answers (`align.constraint`) from a TOML file that people can read and change.

    [[limit]]
    name = 'years'                     the column of the metrics
    kind = 'patterns'                  a share of answers: those that match one of them
    patterns = ['\\b(?:1[789]|20)\\d\\d\\b']
    most = 0.01

    [[limit]]
    name = 'private'
    kind = 'personal'                  a share of answers: those with personal data of these kinds (train.data.pii)
    kinds = ['email', 'phone']
    most = 0.001
    multiplier = {kind = 'dual', start = 1.0, rate = 0.1}         or 'pid', which it is if nothing is said, or 'penalty'

    [[limit]]
    name = 'long'
    kind = 'length'                    tokens of an answer, beyond the first `free` of them
    free = 64
    most = 8.0

    [[limit]]
    name = 'harm'
    kind = 'model'                     what a cost model of that name gives, which `models` knows
    model = 'harm'
    most = 0.0

They are read when a config is built, so what they say, not the name of the file, is part of what an experiment is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from align.constraint import PID, Dual, Limit, Multiplier, Penalty
from align.forbidden import Forbidden, Patterns, Personal
from align.rewards import Length, Reward
from align.toml_tables import read_entries
from model.errors import ConfigError, DataError
from train.typecheck import build, hints, require

COMMON = ('name', 'kind', 'most', 'multiplier')
MULTIPLIERS: dict[str, type[Multiplier]] = {'pid': PID, 'dual': Dual, 'penalty': Penalty}


def read_limits(path: Path | str, models: Mapping[str, Reward] | None = None) -> tuple[Limit, ...]:
  """The limits of a TOML file, in its order; `models` are the cost models that it may name.

  Raises: DataError that names the file, the entry with its line, and the field: a field that is missing, unknown or of
  another kind, a pattern that is none, a name that is there twice; and where the file is no TOML or holds no limit.
  """
  found: dict[str, Limit] = {}
  for where, entry in read_entries(path, 'limit'):
    limit = _limit(entry, models or {}, where)
    if limit.name in found:
      raise DataError('limit.twice', f"{where}: field 'name' is {limit.name!r}", 'another one has it too', 'name them apart')
    found[limit.name] = limit
  return tuple(found.values())


def _limit(entry: dict[str, Any], models: Mapping[str, Reward], where: str) -> Limit:
  makers: dict[str, tuple[tuple[str, ...], Callable[[], Reward]]] = {
    'patterns': (('patterns',), lambda: Forbidden(_built(Patterns, {'patterns': entry['patterns']}, where))),
    'personal': (('kinds',), lambda: Forbidden(_built(Personal, {'kinds': entry['kinds']}, where))),
    'length': (('free',), lambda: _built(Length, {'per_token': 1.0, 'free': entry['free']}, where)),
    'model': (('model',), lambda: _model(entry['model'], models, where))}
  kind = entry.get('kind')
  if kind not in makers:
    raise DataError('limit.kind', f"{where}: field 'kind' is {kind!r:.60}", f'it is one of {", ".join(makers)}',
                    'name one of them')
  own, make = makers[kind]
  if unknown := sorted(entry.keys() - {*COMMON, *own}):
    raise DataError('limit.unknown-field', f'{where}: field {unknown[0]!r}', f'a limit of this kind has '
                    f'{", ".join((*COMMON, *own))}', 'remove it, or mend its name')
  for name in ('name', *own, 'most'):
    if name not in entry:
      raise DataError('limit.no-field', f'{where}: field {name!r}', 'it is missing', f'add {name} = ...')
  if not isinstance(entry['name'], str) or not entry['name'].isidentifier():
    raise DataError('limit.bad-name', f"{where}: field 'name' is {entry['name']!r:.60}", 'a name becomes a column of the '
                    "metrics", "use letters, digits and _, as in name = 'years'")
  return _built(Limit, {'name': entry['name'], 'cost': make(), 'most': entry['most'],
                        'multiplier': _multiplier(entry.get('multiplier', {}), where)}, where)


def _multiplier(said: Any, where: str) -> Multiplier:
  rest = dict(said) if isinstance(said, dict) else {'kind': said}
  kind = rest.pop('kind', 'pid')
  if kind not in MULTIPLIERS:
    raise DataError('limit.multiplier', f"{where}: field 'multiplier' is {said!r:.60}", f'its kind is one of '
                    f'{", ".join(MULTIPLIERS)}', "write for example multiplier = {kind = 'pid', integral = 0.1}")
  return _built(MULTIPLIERS[kind], rest, f"{where}: field 'multiplier'")


def _model(name: Any, models: Mapping[str, Reward], where: str) -> Reward:
  if name not in models:
    raise DataError('limit.no-model', f"{where}: field 'model' is {name!r:.60}", f'the experiment gives '
                    f'{", ".join(models) or "none"}', 'give it to read_limits as one of its models')
  return models[name]


def _built(cls: type, said: dict[str, Any], where: str) -> Any:
  """A frozen value, each field checked against its annotation. Raises: DataError that names the place."""
  known = hints(cls)
  if unknown := sorted(said.keys() - known.keys()):
    raise DataError('limit.unknown-field', f'{where}: field {unknown[0]!r}', f'{cls.__name__} has {", ".join(known)}',
                    'remove it, or mend its name')
  values = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
  try:
    return build(cls, {name: require(value, known[name], name) for name, value in values.items()}, cls.__name__)
  except ConfigError as error:
    raise DataError('limit.bad-field', f'{where}: {error.what}', error.why, error.do) from error
