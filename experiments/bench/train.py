"""The training step of a Llama-style model of 10.5 million parameters, beside its peers at their best."""

from collections.abc import Iterator
from pathlib import Path

from experiments.bench.driver import Contestant, Race, race
from experiments.bench.line import Line, Target, apart, raced
from experiments.bench.ours.model import write_batches
from experiments.bench.setting import Setting
from experiments.bench.task import LOSSES, TASK

OURS, CEILING = 'ours', 'ceiling'
ASKED = {'float32': {'HF eager': 1.10, 'litgpt eager': 1.10, 'HF compiled': 1.00}, 'bfloat16': {'HF eager': 1.00}}
SHARE = 0.60                          # of the ceiling, in float32


def lines(setting: Setting) -> Iterator[Line]:
  """One line for each dtype of the matmuls."""
  for dtype in ('float32', 'bfloat16'):
    folder = setting.room(f'train-{dtype}')
    write_batches(folder)
    racers = contestants(setting, folder, dtype)
    found = race(racers, 2 if setting.quick else setting.turns, 1 if setting.quick else 3, folder)
    yield judged(found, dtype, setting)


def contestants(setting: Setting, folder: Path, dtype: str) -> list[Contestant]:
  """Ours first: it writes the parameters that all begin with."""
  def hf(form: str) -> list[Contestant]:
    return setting.peer(f'HF {form}', 'hf', 'hf', str(folder), '10m', dtype, form, cache=folder / f'inductor-{form}')

  lit = setting.peer('litgpt eager', 'litgpt', 'lit', str(folder), dtype, 'eager') if dtype == 'float32' else []
  return [Contestant(OURS, 'experiments.bench.ours.train', (str(folder), '10m', dtype, '{}')),
          Contestant(CEILING, 'experiments.bench.ours.ceiling'), *hf('eager'), *hf('compiled'), *lit]


def judged(found: Race, dtype: str, setting: Setting) -> Line:
  """The line of a race: losses first."""
  peers = [name for name in found.turns if name not in (OURS, CEILING)]
  curves = {name: found.prepared[name]['losses'] + found.series(name, 'loss') for name in (OURS, *peers)}
  distances = {name: apart(curves[OURS], curves[name]) for name in peers}
  figures = raced(found, [OURS, *peers])
  ceiling = max(found.series(CEILING, 'flops'))
  share = TASK.flops / figures[OURS].median / ceiling
  line = Line(f'train-{dtype}', 's/step', figures, OURS, load=found.load, quick=setting.quick)
  line.targets = [Target(f'speed of {name}', line.ratios[name], least=least) for name, least in ASKED[dtype].items()
                  if name in line.ratios]
  if dtype == 'float32':
    line.targets.append(Target('share of the GEMM ceiling', share, least=SHARE))
  line.checks = {'equal': all(distance <= LOSSES[dtype] for distance in distances.values()),
                 'losses_apart': distances, 'tolerance': LOSSES[dtype], 'steps': len(curves[OURS]),
                 'loss_first_last': [curves[OURS][0], curves[OURS][-1]], 'died': list(found.died),
                 'missing': [name for name in ASKED[dtype] if name not in figures]}
  line.more = {'tokens_per_s': {name: TASK.tokens / each.median for name, each in figures.items()},
               'ceiling_gflops': ceiling / 1e9, 'ceiling_share': share,
               'prepared': {name: {key: value for key, value in each.items() if key != 'losses'}
                            for name, each in found.prepared.items()}}
  return line
