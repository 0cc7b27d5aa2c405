"""Lines of races for the page: each peer's ratio on one scale for all, with what was wanted of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.bench.show import quantity

Record = Mapping[str, Any]
EDGE = 4.0             # the scale goes from a quarter to four times as fast
TITLES = {
  'train-float32': 'Training step, float32', 'train-bfloat16': 'Training step, bfloat16 at the matmul', 'head': 'Loss head',
  'tune-sft': 'Fine-tuning on conversations', 'tune-dpo': 'DPO', 'rlhf-ppo': 'PPO iteration', 'rlhf-grpo': 'GRPO iteration',
  'checkpoint-save': 'Saving half a gigabyte', 'checkpoint-restore': 'Restoring half a gigabyte', 'data': 'A batch of rows',
  'input-wait': 'Waiting for input beside a step', 'import': 'Importing', 'first-step': 'A new run to its first step',
  'relaunch': 'A stopped run to its first new step', 'decode-1': 'SmolLM2-135M answers one prompt',
  'decode-16': 'SmolLM2-135M answers 16 prompts', 'decode-10m-1': 'A model of 10M answers one prompt',
  'decode-10m-16': 'A model of 10M answers 16 prompts'}
VERDICTS = {'met': 'as wanted', 'missed': 'below what was wanted', 'noisy': 'noisy: not judged', 'unequal': 'not comparable',
            'no peers': 'peers missing: not judged', 'quick': 'a quick look: not judged'}


class Peer(NamedTuple):
  """A contestant beside ours: `ratio` is its time over ours. Places are in percent of the scale, '' where there is none."""

  name: str
  ratio: float
  time: str
  spread: str
  wanted: str                          # '≥ 1.1', or ''
  judged: bool
  at: str
  left: str                            # of the interval that the spread makes
  width: str
  bar: str                             # what was wanted


class Target(NamedTuple):
  """A figure that is no ratio to a peer."""

  name: str
  value: str
  wanted: str
  met: bool


class Benchmark(NamedTuple):
  """A race."""

  name: str
  title: str
  verdict: str
  said: str
  ours: str
  spread: str
  peers: list[Peer]
  targets: list[Target]                # all, those of peers included
  others: list[Target]                 # those that no peer's row shows
  died: list[str]

  @property
  def judged(self) -> bool:
    return self.verdict in ('met', 'missed')


def benchmarks(records: Sequence[Record]) -> list[Benchmark]:
  """The last line of each benchmark, in the order in which they first came."""
  return [benchmark(record) for record in {each['benchmark']: each for each in records}.values()]


def benchmark(record: Record) -> Benchmark:
  """One line as it is shown."""
  mine, unit, checks = record['figures'][record['ours']], record['unit'], record.get('checks') or {}
  asked = {target['name']: target for target in record['targets']}
  peers = [peer(record, name, ratio, asked) for name, ratio in (record.get('ratios') or {}).items()]
  targets = [Target(name, f'{each["value"]:.3g}', each['wanted'], each['met']) for name, each in asked.items()]
  others = [target for target in targets if not any(target.name.endswith(f' of {each.name}') for each in peers)]
  lost = [*(checks.get('died') or ()), *(checks.get('missing') or ())]
  name, verdict = str(record['benchmark']), str(record['verdict'])
  return Benchmark(name, TITLES.get(name, name), verdict, VERDICTS.get(verdict, verdict), quantity(mine['median'], unit),
                   f'{mine["spread"]:.0%}', peers, targets, others, list(dict.fromkeys(map(str, lost))))


def peer(record: Record, name: str, ratio: float, asked: Mapping[str, Record]) -> Peer:
  """A contestant's row. Its time at most so many times ours is a speed of at least the inverse."""
  each, mine = record['figures'][name], record['figures'][record['ours']]
  half = (each['spread'] + mine['spread']) / 2
  speed, time = asked.get(f'speed of {name}'), asked.get(f'time of {name}')
  least = speed['least'] if speed else 1 / time['most'] if time else None
  low, high = place(ratio / (1 + half)), place(ratio * (1 + half))
  return Peer(name, ratio, quantity(each['median'], record['unit']), f'{each["spread"]:.0%}',
              '' if least is None else f'≥ {least:.3g}', record['verdict'] in ('met', 'missed'), f'{place(ratio):.1f}',
              f'{low:.1f}', f'{high - low:.1f}', '' if least is None else f'{place(least):.1f}')


def place(ratio: float) -> float:
  """Where a ratio lies on the scale, in percent: 1 in the middle, what is off it at its end."""
  return 50 + 50 * max(-1.0, min(1.0, math.log(max(ratio, 1e-9)) / math.log(EDGE)))
