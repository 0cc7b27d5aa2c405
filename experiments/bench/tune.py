"""Steps of fine-tuning and of preferences beside TRL's trainers, and of fine-tuning beside Hugging Face's plain loss.

Half of every row is a prompt. All begin with the same parameters and learn from the same batches by the same AdamW, in
float32; a line is about the losses first.
"""

from collections.abc import Iterator
from pathlib import Path

from experiments.bench.driver import Contestant, Race, race
from experiments.bench.line import Line, compared, raced
from experiments.bench.ours.model import write_batches
from experiments.bench.ours.tune import write_pairs
from experiments.bench.setting import Setting
from experiments.bench.task import LOSSES, TASKS

OURS, TASK, PARTS = 'ours', '10m', ('sft', 'dpo')
ASKED = {'sft': {'TRL': 1.0, 'HF eager': 1.0}, 'dpo': {'TRL': 1.0}}


def lines(setting: Setting) -> Iterator[Line]:
  """One line for each kind of step."""
  for kind in PARTS:
    folder = setting.room(f'tune-{kind}')
    write_batches(folder, TASKS[TASK])
    write_pairs(folder, TASKS[TASK])
    found = race(contestants(setting, folder, kind, TASK), *setting.rounds(3), folder)
    yield judged(found, kind, TASK, setting)


def contestants(setting: Setting, folder: Path, kind: str, name: str) -> list[Contestant]:
  """Ours first: it writes the parameters that all begin with."""
  plain = [peer for form in ('eager', 'compiled') if kind == 'sft' for peer in setting.peer(
      f'HF {form}', 'trl', 'hf_sft', str(folder), name, form, cache=folder / f'inductor-{form}')]
  return [Contestant(OURS, 'experiments.bench.ours.tune', (str(folder), name, kind)),
          *setting.peer('TRL', 'trl', 'trl_tune', str(folder), name, kind), *plain]


def judged(found: Race, kind: str, name: str, setting: Setting) -> Line:
  """The line of a race: losses first."""
  line = Line(f'tune-{kind}', 's/step', raced(found, found.turns), OURS, load=found.load, quick=setting.quick)
  line.targets = line.speeds(ASKED[kind])
  line.checks = {**compared(found, OURS, line.ratios, LOSSES['float32']),
                 'missing': [who for who in ASKED[kind] if who not in line.figures]}
  line.more = {'tokens_per_s': {who: TASKS[name].tokens / each.median for who, each in line.figures.items()},
               'prepared': found.told}
  return line
