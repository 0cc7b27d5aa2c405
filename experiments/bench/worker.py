"""The contestant's side of a race: a process that stays warm and does a few steps when it is its turn.

Requests come as JSON lines on standard input, answers leave as JSON lines on what was standard output; whatever the
contestant itself prints goes to standard error. Only Python's own library is used, for peers run in environments of
their own.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

Sample = dict[str, float]            # numbers of one step; 'wall' and 'cpu' are seconds


class Program(Protocol):
  """What a contestant can do."""

  def prepare(self) -> dict[str, Any]:
    """Compiles, warms up, and says what is to be compared before anything is timed."""
    ...

  def step(self) -> Sample:
    """Does one step and says what it measured. Nothing may be left running when it returns."""
    ...


def serve(program: Program) -> None:
  """Answers until standard input ends: {"do": "prepare"}, or {"do": "turn", "count": 3}."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  for line in sys.stdin:
    request = json.loads(line)
    if request['do'] == 'prepare':
      answer: Any = program.prepare()
    else:
      answer = [program.step() for _ in range(request['count'])]
    print(json.dumps(answer), file=answers, flush=True)


def timed(call: Callable[[], Any]) -> tuple[Sample, Any]:
  """Seconds on the clock and of all cores for one call, and what it gave. The call waits for its own results."""
  cpu, wall = time.process_time(), time.perf_counter()
  result = call()
  return {'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu}, result


def shared(sample: Sample, steps: int) -> Sample:
  """What each of so many steps took of a sample."""
  return {name: value / steps for name, value in sample.items()}


def spree(call: Callable[[], Any], count: int) -> Sample:
  """What one of so many calls took."""
  def calls() -> None:
    for _ in range(count):
      call()

  return shared(timed(calls)[0], count)


def pace(call: Callable[[], Any], wait: Callable[[Any], Any], seconds: float = 0.25, bursts: int = 5) -> float:
  """Seconds of a call: the median over bursts of calls, each as long as `seconds / bursts`, that are waited for together."""
  def burst(count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count - 1):
      call()
    wait(call())
    return (time.perf_counter() - begin) / count

  burst(1)                             # compiles, and finds its memory
  count = max(1, round(seconds / bursts / burst(2)))
  return statistics.median(burst(count) for _ in range(bursts))


def peak_mb() -> float:
  """The most memory that this process had so far, in MB; 0 where the system does not say. What getrusage says survives exec."""
  try:
    lines = Path('/proc/self/status').read_text().splitlines()
  except OSError:
    return 0.0
  return next((int(line.split()[1]) for line in lines if line.startswith('VmHWM')), 0) / 1000
