"""Reads the principles of a constitution (`align.constitution`) from a TOML file that people can read and change.

    [[principle]]
    id = 'private'
    critique = 'Does the answer give away what is private? Say so.'         after an answer, to the critic
    revise = 'Write the answer again and give nothing private away.'        after the critique
    prefer = 'Which answer is the more careful with private things?'        above two answers, to a judge

They are read when a config is built, so their texts, not the name of the file, are part of what an experiment is.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from align.toml_tables import read_entries
from model.errors import ConfigError, DataError


@dataclass(frozen=True)
class Principle:
  """One principle of a constitution. `id` is its name in records."""

  id: str
  critique: str
  revise: str
  prefer: str


FIELDS = tuple(field.name for field in fields(Principle))


def read_principles(path: Path | str) -> tuple[Principle, ...]:
  """The principles of a TOML file, in its order.

  Raises: DataError that names the file, the entry with its line, and the field: a field that is missing, unknown, empty or
  no text, an id that is there twice; and where the file is no TOML or holds no principle.
  """
  found: dict[str, Principle] = {}
  for where, entry in read_entries(path, 'principle'):
    principle = _principle(entry, where)
    if principle.id in found:
      raise DataError('principle.twice', f'{where}: field \'id\' is {principle.id!r}', 'another one has it too',
                      'give each an id of its own')
    found[principle.id] = principle
  return tuple(found.values())


def _principle(entry: dict[str, Any], where: str) -> Principle:
  if unknown := sorted(entry.keys() - set(FIELDS)):
    raise DataError('principle.unknown-field', f'{where}: field {unknown[0]!r}', f'a principle has {", ".join(FIELDS)}',
                    'remove it, or mend its name')
  for name in FIELDS:
    if name not in entry:
      raise DataError('principle.no-field', f'{where}: field {name!r}', 'it is missing', f'add {name} = \'...\'')
    if not isinstance(entry[name], str) or not entry[name].strip():
      raise DataError('principle.no-text', f'{where}: field {name!r} is {entry[name]!r:.60}', 'it must be a text that says '
                      'something', 'write it in quotes')
  return Principle(**{name: entry[name].strip() for name in FIELDS})


def check_principles(principles: tuple[Principle, ...]) -> None:
  """Raises: ConfigError unless there is at least one, and each has an id of its own."""
  if not principles or len({principle.id for principle in principles}) < len(principles):
    raise ConfigError('config.principles', f'principles = {[principle.id for principle in principles]}',
                      'a constitution has at least one, each with an id of its own', 'read them with read_principles')
