"""Steps of fine-tuning and of preferences beside TRL's trainers, and of fine-tuning beside Hugging Face's plain loss.

Half of every row is a prompt. All begin with the same parameters and learn from the same batches by the same AdamW, in
float32; a line is about the losses first.
"""

from collections.abc import Iterator
from pathlib import Path

from experiments.bench.driver import Contestant, Race, race
from experiments.bench.line import Line, Target, apart, raced
from experiments.bench.ours.model import write_batches
from experiments.bench.ours.tune import write_pairs
from experiments.bench.setting import Setting
from experiments.bench.task import LOSSES, TASKS

OURS, PARTS = 'ours', ('sft', 'dpo')
ASKED = {'sft': {'TRL': 1.0, 'HF eager': 1.0}, 'dpo': {'TRL': 1.0}}


def lines(setting: Setting) -> Iterator[Line]:
  """One line for each kind of step."""
  for kind in PARTS:
    folder = setting.room(f'tune-{kind}')
    yield judged(raced_on(setting, folder, kind, '10m'), kind, '10m', setting)


def raced_on(setting: Setting, folder: Path, kind: str, name: str) -> Race:
  """The race over a task by its name."""
  write_batches(folder, TASKS[name])
  write_pairs(folder, TASKS[name])
  racers = contestants(setting, folder, kind, name)
  return race(racers, 2 if setting.quick else setting.turns, 1 if setting.quick else 3, folder)


def contestants(setting: Setting, folder: Path, kind: str, name: str) -> list[Contestant]:
  """Ours first: it writes the parameters that all begin with."""
  plain = [peer for form in ('eager', 'compiled') if kind == 'sft' for peer in setting.peer(
      f'HF {form}', 'trl', 'hf_sft', str(folder), name, form, cache=folder / f'inductor-{form}')]
  return [Contestant(OURS, 'experiments.bench.ours.tune', (str(folder), name, kind)),
          *setting.peer('TRL', 'trl', 'trl_tune', str(folder), name, kind), *plain]


def judged(found: Race, kind: str, name: str, setting: Setting) -> Line:
  """The line of a race: losses first."""
  curves = {who: found.prepared[who]['losses'] + found.series(who, 'loss') for who in found.turns}
  distances = {who: apart(curves[OURS], curve) for who, curve in curves.items() if who != OURS}
  line = Line(f'tune-{kind}', 's/step', raced(found, found.turns), OURS, load=found.load, quick=setting.quick)
  line.targets = [Target(f'speed of {who}', line.ratios[who], least=least) for who, least in ASKED[kind].items()
                  if who in line.ratios]
  line.checks = {'equal': all(distance <= LOSSES['float32'] for distance in distances.values()), 'losses_apart': distances,
                 'tolerance': LOSSES['float32'], 'steps': len(curves[OURS]),
                 'loss_first_last': [curves[OURS][0], curves[OURS][-1]], 'died': list(found.died),
                 'missing': [who for who in ASKED[kind] if who not in line.figures]}
  line.more = {'tokens_per_s': {who: TASKS[name].tokens / each.median for who, each in line.figures.items()},
               'prepared': {who: {key: value for key, value in each.items() if key != 'losses'}
                            for who, each in found.prepared.items()}}
  return line
