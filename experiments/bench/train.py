"""The training step of a Llama-style model of 10.5 million parameters, beside its peers at their best."""

from collections.abc import Iterator
from pathlib import Path

from experiments.bench.driver import Contestant, Race, race
from experiments.bench.line import Line, Target, compared, raced
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
    found = race(racers, *setting.rounds(3), folder)
    yield judged(found, dtype, setting)


def contestants(setting: Setting, folder: Path, dtype: str) -> list[Contestant]:
  """Ours first: it writes the parameters that all begin with."""
  def hf(form: str) -> list[Contestant]:
    return setting.peer(f'HF {form}', 'hf', 'hf', str(folder), '10m', dtype, form, cache=folder / f'inductor-{form}')

  lit = setting.peer('litgpt eager', 'litgpt', 'lit', str(folder), '10m', dtype, 'eager') if dtype == 'float32' else []
  return [Contestant(OURS, 'experiments.bench.ours.train', (str(folder), '10m', dtype, '{}')),
          Contestant(CEILING, 'experiments.bench.ours.ceiling'), *hf('eager'), *hf('compiled'), *lit]


def judged(found: Race, dtype: str, setting: Setting) -> Line:
  """The line of a race: losses first."""
  peers = [name for name in found.turns if name not in (OURS, CEILING)]
  figures = raced(found, [OURS, *peers])
  ceiling = max(found.series(CEILING, 'flops'))
  share = TASK.flops / figures[OURS].median / ceiling
  line = Line(f'train-{dtype}', 's/step', figures, OURS, load=found.load, quick=setting.quick)
  line.targets = line.speeds(ASKED[dtype])
  if dtype == 'float32':
    line.targets.append(Target('share of the GEMM ceiling', share, least=SHARE))
  line.checks = {**compared(found, OURS, peers, LOSSES[dtype]),
                 'missing': [name for name in ASKED[dtype] if name not in figures]}
  line.more = {'tokens_per_s': {name: TASK.tokens / each.median for name, each in figures.items()},
               'ceiling_gflops': ceiling / 1e9, 'ceiling_share': share, 'prepared': found.told}
  return line
