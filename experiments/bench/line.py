"""From the samples of a race to one JSON line: medians, spreads, ratios, and a verdict where one is allowed."""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.bench.driver import Race
from experiments.bench.priority import granted
from experiments.bench.worker import Sample
from train.environment import environment

NOISY = 0.15              # a contestant whose turns differ by more than this share makes the line say so
Verdict = Literal['met', 'missed', 'noisy', 'unequal', 'no peers', 'quick']


@dataclass(frozen=True)
class Figures:
  """One number of a contestant over all its steps. `spread` is that of the medians of its turns, as a share."""

  median: float
  minimum: float
  spread: float
  cpu: float              # seconds of all cores a step
  count: int


@dataclass(frozen=True)
class Target:
  """A figure and what was asked of it: at least, or at most."""

  name: str
  value: float
  least: float | None = None
  most: float | None = None

  @property
  def met(self) -> bool:
    return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

  @property
  def wanted(self) -> str:
    return f'≥ {self.least:g}' if self.least is not None else f'≤ {self.most:g}'


@dataclass
class Line:
  """All that is written down of a benchmark. `figures` are of `unit`, where less is better."""

  benchmark: str
  unit: str
  figures: dict[str, Figures]
  ours: str
  targets: list[Target] = field(default_factory=list)
  checks: dict[str, Any] = field(default_factory=dict)      # what was compared first; 'equal' decides
  more: dict[str, Any] = field(default_factory=dict)        # figures for information
  load: list[float] = field(default_factory=list)
  quick: bool = False

  @property
  def ratios(self) -> dict[str, float]:
    """How many times as long as ours each peer takes: medians of the same run."""
    mine = self.figures[self.ours].median
    return {name: each.median / mine for name, each in self.figures.items() if name != self.ours}

  def speeds(self, asked: Mapping[str, float]) -> list[Target]:
    """What is asked of our speed beside each peer, as far as those finished."""
    return [Target(f'speed of {name}', self.ratios[name], least=least) for name, least in asked.items() if name in self.ratios]

  @property
  def verdict(self) -> Verdict:
    """No figure is judged that was not comparable, was too rough, or was measured for a look."""
    if not self.checks.get('equal', True):
      return 'unequal'
    if self.quick:
      return 'quick'
    if any(each.spread > NOISY for each in self.figures.values()):
      return 'noisy'
    if self.checks.get('missing'):
      return 'no peers'
    return 'met' if all(target.met for target in self.targets) else 'missed'

  def json(self) -> str:
    """The line. Ratios are left out where the contestants did not do the same."""
    ratios = self.ratios if self.checks.get('equal', True) else {}
    best = min(ratios, key=lambda name: ratios[name]) if ratios else None
    return json.dumps({
        'benchmark': self.benchmark, 'verdict': self.verdict, 'unit': self.unit, 'ours': self.ours,
        'figures': {name: asdict(each) for name, each in self.figures.items()},
        'ratios': ratios, 'best_peer': best, 'ratio': ratios.get(best) if best else None,
        'targets': [asdict(each) | {'wanted': each.wanted, 'met': each.met} for each in self.targets],
        'checks': self.checks, **self.more, 'load': [round(load, 1) for load in self.load], **circumstances()})


def figures(turns: Sequence[Sequence[Sample]], key: str = 'wall') -> Figures:
  """The figures of one number in the samples of each turn."""
  values = [sample[key] for turn in turns for sample in turn]
  medians = [statistics.median(sample[key] for sample in turn) for turn in turns]
  median = statistics.median(values)
  spread = (max(medians) - min(medians)) / median if median else 0.0
  cpu = statistics.median(sample.get('cpu', 0.0) for turn in turns for sample in turn)
  return Figures(median, min(values), spread, cpu, len(values))


def raced(found: Race, names: Iterable[str], key: str = 'wall') -> dict[str, Figures]:
  """The figures of those of the named that finished."""
  return {name: figures(found.turns[name], key) for name in names if name in found.turns}


def apart(mine: Sequence[float], theirs: Sequence[float]) -> float:
  """The largest distance between two curves as far as both go."""
  return max(abs(a - b) for a, b in zip(mine, theirs))


def compared(found: Race, ours: str, peers: Iterable[str], tolerance: float) -> dict[str, Any]:
  """The checks of trainings that begin alike: how far the losses of peers are from ours, nats, and whether that is near."""
  curves = {name: found.prepared[name]['losses'] + found.series(name, 'loss') for name in (ours, *peers)}
  mine = curves.pop(ours)
  distances = {name: apart(mine, curve) for name, curve in curves.items()}
  return {'equal': all(distance <= tolerance for distance in distances.values()), 'losses_apart': distances,
          'tolerance': tolerance, 'steps': len(mine), 'loss_first_last': [mine[0], mine[-1]], 'died': list(found.died)}


def circumstances() -> dict[str, Any]:
  """When, by which code, on what."""
  now = environment()
  return {'when': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()), 'code': now['code'],
          'versions': {'python': now['python'], **now['packages']}, 'processor': processor(), 'cores': os.cpu_count(),
          'priority': 'round-robin' if granted() else 'normal'}


def processor() -> str:
  """The name of the processor, as the system has it."""
  try:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor()
  return next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), platform.machine())


def append(path: Path, line: Line) -> Mapping[str, Any]:
  """Adds the line to a file and gives it back as it stands there."""
  text = line.json()
  with path.open('a') as out:
    print(text, file=out)
  return json.loads(text)
