"""The loss head alone, forward and backward: [4096, 256] against 8192 words in float32."""

from collections.abc import Iterator

from experiments.bench.driver import Contestant, race
from experiments.bench.line import Line, raced
from experiments.bench.setting import Setting
from experiments.bench.task import TASK

CEILING = 'ceiling'
ASKED = {'torch eager': 1.5}            # which holds all logits


def lines(setting: Setting) -> Iterator[Line]:
  """One line."""
  folder = setting.room('head')
  peers = [peer for form in ('eager', 'compiled') for peer in setting.peer(
      f'torch {form}', 'hf', 'torch_head', '10m', 'float32', form, cache=folder / f'inductor-{form}')]
  racers = [Contestant('ours', 'experiments.bench.ours.head', ('10m', 'float32')),
            Contestant(CEILING, 'experiments.bench.ours.ceiling'), *peers]
  found = race(racers, *setting.rounds(4), folder)
  line = Line('head', 's', raced(found, [racer.name for racer in racers if racer.name != CEILING]), 'ours',
              load=found.load, quick=setting.quick)
  flops, ceiling = 6.0 * TASK.tokens * TASK.width * TASK.vocab, max(found.series(CEILING, 'flops'))
  line.more = {'ceiling_gflops': ceiling / 1e9, 'ceiling_share': flops / line.figures['ours'].median / ceiling,
               'prepared': found.prepared}
  line.targets = line.speeds(ASKED)
  line.checks = {'died': list(found.died), 'missing': [name for name in ASKED if name not in line.figures]}
  yield line
