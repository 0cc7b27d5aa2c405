"""Saves and restores of half a gigabyte, beside Orbax as it comes and beside safetensors."""

import statistics
from collections.abc import Iterator

from experiments.bench.driver import Contestant, race
from experiments.bench.line import Line, Target, raced
from experiments.bench.setting import Setting

RACERS = ('ours', 'orbax', 'safetensors')
UNIT = 0.5e9                           # bytes that the stall is told for


def lines(setting: Setting) -> Iterator[Line]:
  """A line for saving and one for restoring, of the same race."""
  folder = setting.room('checkpoint')
  racers = [Contestant(name, 'experiments.bench.ours.save', (str(folder / name), name)) for name in RACERS]
  found = race(racers, *setting.rounds(2), folder)
  size = found.prepared['ours']['bytes']
  stalls = {name: statistics.median(found.series(name, 'stall')) * UNIT / size for name in found.turns}
  save = Line('checkpoint-save', 's', raced(found, RACERS), 'ours', load=found.load, quick=setting.quick)
  save.targets = [Target('stall of 0.5 GB, ms', stalls['ours'] * 1e3, most=50),
                  Target('speed of orbax', save.ratios['orbax'], least=2.0)]
  save.more = {'bytes': size, 'stall_ms': {name: stall * 1e3 for name, stall in stalls.items()},
               'call_ms': {name: statistics.median(found.series(name, 'call')) * 1e3 for name in found.turns}}
  yield save
  restore = Line('checkpoint-restore', 's', raced(found, RACERS, 'restore'), 'ours', load=found.load,
                 quick=setting.quick)
  restore.targets = [Target('time of safetensors', 1 / restore.ratios['safetensors'], most=1.5)]
  restore.more = {'bytes': size}
  yield restore
