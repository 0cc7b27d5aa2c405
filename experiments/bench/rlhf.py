"""An iteration of RLHF by phases: PPO with four models of one size, and GRPO beside TRL's.

An iteration samples answers, reads and judges them, and learns from each once. Prompts and answers have a fixed number of
tokens. All figures are of tokens that were sampled, so that the phases' seconds add up.
"""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.bench.driver import Contestant, Race, race
from experiments.bench.line import Line, apart, raced
from experiments.bench.setting import Setting
from experiments.bench.task import ITERATIONS, LOSSES

OURS, PROGRAM, TASK = 'ours', 'experiments.bench.ours.rlhf', '10m'
ASKED = {'TRL': 2.0}
BESIDE = ('wall', 'cpu', 'loss', 'answer_tokens')      # of a sample: what is no phase


def lines(setting: Setting) -> Iterator[Line]:
  """A line for PPO, and one for GRPO."""
  folder = setting.room('rlhf-ppo')
  yield alone(race([Contestant(OURS, PROGRAM, (str(folder), TASK, 'ppo'))], *setting.rounds(2), folder), TASK, setting)
  folder = setting.room('rlhf-grpo')
  yield judged(race(contestants(setting, folder, TASK), *setting.rounds(2), folder), TASK, setting)


def contestants(setting: Setting, folder: Path, name: str) -> list[Contestant]:
  """Ours first: it writes the parameters and the rollout that are compared."""
  return [Contestant(OURS, PROGRAM, (str(folder), name, 'grpo')),
          *setting.peer('TRL', 'trl', 'trl_grpo', str(folder), name)]


def alone(found: Race, name: str, setting: Setting) -> Line:
  """The line of PPO: nobody is beside it."""
  line = Line('rlhf-ppo', 's/iter', raced(found, [OURS]), OURS, load=found.load, quick=setting.quick)
  line.checks, line.more = {'equal': whole(found, name)}, told(found, line, name)
  return line


def judged(found: Race, name: str, setting: Setting) -> Line:
  """The line of GRPO: losses and numbers of tokens first."""
  distances = {who: apart(found.prepared[OURS]['losses'], found.prepared[who]['losses']) for who in found.turns if who != OURS}
  line = Line('rlhf-grpo', 's/iter', raced(found, found.turns), OURS, load=found.load, quick=setting.quick)
  line.targets = line.speeds(ASKED)
  equal = whole(found, name) and all(distance <= LOSSES['float32'] for distance in distances.values())
  line.checks = {'equal': equal, 'losses_apart': distances, 'tolerance': LOSSES['float32'],
                 'losses': found.prepared[OURS]['losses'], 'died': list(found.died),
                 'missing': [who for who in ASKED if who not in line.figures]}
  line.more = told(found, line, name)
  return line


def whole(found: Race, name: str) -> bool:
  """Whether every answer of all iterations had all of its tokens."""
  return all(count == ITERATIONS[name].tokens for who in found.turns for count in found.series(who, 'answer_tokens'))


def told(found: Race, line: Line, name: str) -> dict[str, Any]:
  """Tokens a second, and for every contestant and phase the median of its seconds, its share and its tokens a second."""
  tokens = ITERATIONS[name].tokens

  def phase(who: str, key: str) -> dict[str, float]:
    seconds = statistics.median(found.series(who, key))
    return {'seconds': seconds, 'share': seconds / line.figures[who].median, 'tokens_per_s': tokens / seconds}

  keys = {who: [key for key, value in found.turns[who][0][0].items() if key not in BESIDE and value] for who in found.turns}
  return {'tokens': tokens, 'tokens_per_s': {who: tokens / each.median for who, each in line.figures.items()},
          'phases': {who: {key: phase(who, key) for key in keys[who]} for who in found.turns}, 'prepared': found.told}
