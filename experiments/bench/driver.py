"""A race: contestants are warm processes that take turns, so that whatever else the machine does strikes all alike."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from experiments.bench.priority import ahead
from experiments.bench.worker import Sample

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Contestant:
  """A program `python -m module *arguments`, in an environment of its own."""

  name: str
  module: str
  arguments: tuple[str, ...] = ()
  python: str = sys.executable
  environment: Mapping[str, str] = field(default_factory=dict)
  patience: float | None = None         # seconds after which it is ended
  ahead: bool = True                    # with real-time priority in its turns; not where it waits for a GPU by spinning


class Died(RuntimeError):
  """A contestant ended instead of answering; the text is the last that it wrote."""


class Child:
  """A contestant that runs. A context manager: it ends with the block."""

  def __init__(self, contestant: Contestant, logs: Path):
    self.name, self.log = contestant.name, logs / f'{contestant.name.replace(" ", "-")}.log'
    with self.log.open('w') as errors:
      self.process = subprocess.Popen(
          [contestant.python, '-m', contestant.module, *contestant.arguments], cwd=ROOT, stdin=subprocess.PIPE,
          stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **contestant.environment})
    self.ahead = contestant.ahead
    self.alarm = threading.Timer(contestant.patience or 0, self.process.kill)
    if contestant.patience is not None:
      self.alarm.start()

  def ask(self, request: Mapping[str, Any]) -> Any:
    """The answer to a request. Raises: Died."""
    assert self.process.stdin and self.process.stdout
    try:
      print(json.dumps(request), file=self.process.stdin, flush=True)
      answer = self.process.stdout.readline()
    except BrokenPipeError:
      answer = ''
    if not answer:
      self.process.wait()
      raise Died(f'{self.name} ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}')
    return json.loads(answer)

  def turn(self, count: int) -> list[Sample]:
    """The samples of so many steps, ahead of everything else on the machine."""
    with ahead(self.process.pid) if self.ahead else nullcontext():
      return self.ask({'do': 'turn', 'count': count})

  def __enter__(self) -> 'Child':
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               trace: TracebackType | None) -> None:
    self.alarm.cancel()
    for pipe in (self.process.stdin, self.process.stdout):
      if pipe is not None and not pipe.closed:
        pipe.close()
    try:
      self.process.wait(10)
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()


@dataclass
class Race:
  """What came out: by contestant, what it said before and the samples of each of its turns; and who died of what."""

  prepared: dict[str, Any] = field(default_factory=dict)
  turns: dict[str, list[list[Sample]]] = field(default_factory=dict)
  died: dict[str, str] = field(default_factory=dict)
  load: list[float] = field(default_factory=list)

  def series(self, name: str, key: str) -> list[float]:
    """One number of all samples of a contestant, in order."""
    return [sample[key] for turn in self.turns[name] for sample in turn]

  @property
  def told(self) -> dict[str, dict[str, Any]]:
    """What each contestant said before, but for its losses."""
    return {name: {key: value for key, value in each.items() if key != 'losses'} for name, each in self.prepared.items()}


def race(contestants: Sequence[Contestant], turns: int, count: int, logs: Path) -> Race:
  """Prepares one contestant after another, then lets them take turns of `count` steps: A B C A B C.

  The first must finish; the others may die, of which the race tells.
  """
  found = Race()
  with ExitStack() as stack:
    children = list(_ready(contestants, logs, stack, found))
    stack.enter_context(ahead(os.getpid()))      # it only waits, and should not be late with the next request
    for turn in range(turns):
      say(f'  turn {turn + 1} of {turns}')
      found.load.append(os.getloadavg()[0])
      for child in children:
        found.turns[child.name].append(child.turn(count))
  return found


def _ready(contestants: Sequence[Contestant], logs: Path, stack: ExitStack, found: Race) -> Iterator[Child]:
  """Those that did not die while they prepared. Raises: Died for the first."""
  for place, contestant in enumerate(contestants):
    say(f'  preparing {contestant.name}')
    child = stack.enter_context(Child(contestant, logs))
    try:
      found.prepared[child.name] = child.ask({'do': 'prepare'})
    except Died as death:
      if place == 0:
        raise
      found.died[child.name] = str(death)
      say(f'  {death}')
      continue
    found.turns[child.name] = []
    yield child


def say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)
