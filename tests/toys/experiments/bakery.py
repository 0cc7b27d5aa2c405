"""Artifacts that are made in no time, for tests of what makes, finds and resumes them. Bread from flour from a mill."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.errors import ConfigError, NumericsError
from train.artifact import Artifact, Store, append_json, how, write_json


@dataclass(frozen=True)
class Oven:
  """A setting with a range."""

  heat: float = 220.0

  def __post_init__(self):
    if not 0 < self.heat <= 300:
      raise ConfigError('config.out-of-range', f'heat = {self.heat}', 'an oven has 0 to 300 degrees', 'use 220')


@dataclass(frozen=True)
class Pan:
  """Another class for the same field, with a field that has no default."""

  oil: float
  lid: bool = False


@dataclass(frozen=True, kw_only=True)
class Flour(Artifact):
  """A parent."""

  grain: Literal['rye', 'wheat'] = 'rye'

  def make(self, folder: Path, store: Store) -> None:
    write_json(folder / 'flour.json', self.grain)


@dataclass(frozen=True, kw_only=True)
class Bread(Artifact):
  """A child of flour; `minutes` at 0 is a bug, at 1 it is cut off, and above a `rise` of 9 it diverges."""

  flour: Flour
  minutes: int = 40
  baked: Oven | Pan = Oven()
  seeds: tuple[str, ...] = ()
  ovens: tuple[Oven, ...] = (Oven(), Oven(180.0))
  motto: str | None = None
  rise: float = 1.5
  threads: int = how(1)

  def make(self, folder: Path, store: Store) -> None:
    grain = json.loads((store.find(self.flour) / 'flour.json').read_text())
    (folder / 'dough').write_text(grain)
    if self.minutes == 0:
      raise RuntimeError('an empty oven')
    if self.minutes == 1:
      raise KeyboardInterrupt
    if self.rise > 9:
      raise NumericsError('numerics.not-finite', 'the dough', 'it rose without end', 'lower the rise')
    write_json(folder / 'bread.json', [grain, self.minutes])
    append_json(folder / 'metrics.jsonl', {'step': 1, 'loss': 9.0, 'heldout_loss': 8.0})
    append_json(folder / 'metrics.jsonl', {'step': 2, 'heldout_loss': abs(self.rise - 2) + abs(self.minutes - 40) / 10})

  def remains(self, folder: Path) -> str:
    return 'as dough' if (folder / 'dough').exists() else 'with nothing done'


def get_config() -> Bread:
  return Bread(name='bread', flour=Flour(name='flour'))
