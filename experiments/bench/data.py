"""The source of batches: how long a training step waits for it, and how fast it is beside the shortest loaders."""

import statistics
from collections.abc import Iterator
from pathlib import Path

from experiments.bench.driver import Contestant, race
from experiments.bench.line import Line, Target, raced
from experiments.bench.ours.data import write_tokens
from experiments.bench.setting import Setting
from experiments.bench.task import TASK

OURS = 'experiments.bench.ours.data'


def lines(setting: Setting) -> Iterator[Line]:
  """A line for the wait and one for the speed."""
  folder = setting.room('data')
  write_tokens(folder)
  yield waited(setting, folder)
  yield alone(setting, folder)


def waited(setting: Setting, folder: Path) -> Line:
  """The share of a step that is spent waiting for its batch."""
  found = race([Contestant('ours', OURS, (str(folder), 'waited'))], *setting.rounds(3), folder)
  line = Line('input-wait', 's/step', raced(found, ['ours']), 'ours', load=found.load, quick=setting.quick)
  wait = statistics.median(found.series('ours', 'wait'))
  line.targets = [Target('share of the step', wait / line.figures['ours'].median, most=0.01)]
  line.more = {'wait_ms': wait * 1e3, 'longest_ms': max(found.series('ours', 'wait')) * 1e3}
  return line


def alone(setting: Setting, folder: Path) -> Line:
  """Batches of the same file as fast as they come, ours placed on the device and with segments."""
  numpy = Contestant('numpy gather', 'experiments.bench.peers.loader', (str(folder), 'numpy'))
  racers = [Contestant('ours', OURS, (str(folder), 'alone')), numpy,
            *setting.peer('torch DataLoader', 'hf', 'loader', str(folder), 'torch')]
  found = race(racers, *setting.rounds(2), folder)
  line = Line('data', 's/batch', raced(found, [racer.name for racer in racers]), 'ours', load=found.load,
              quick=setting.quick)
  line.more = {'mtokens_per_s': {name: TASK.tokens / each.median / 1e6 for name, each in line.figures.items()}}
  return line
