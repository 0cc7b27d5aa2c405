"""Kills a training with SIGKILL again and again, each time somewhere inside one phase of it, until it is through."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 120.0        # seconds for one life
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Kill:
  """When to kill: in the `nth` phase of that name, after a share of the time that such a phase took last."""

  phase: str
  nth: int
  share: float
  number: signal.Signals = signal.SIGKILL


@dataclass
class Campaign:
  """What happened: kills by the phases that were open when the life died, and how the last life ended."""

  seed: int
  killed: Counter = field(default_factory=Counter)
  lives: int = 0
  ended: int | None = None


class Zygote:
  """A process that gives birth to lives, each a function of `module`, in the shared compilation cache."""

  def __init__(self, module: str):
    environment = os.environ | {'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'jax'), 'XLA_FLAGS': '',
                                'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0', 'JAX_PLATFORMS': 'cpu'}
    self.process = subprocess.Popen([sys.executable, '-m', 'tests.campaign.zygote', module], cwd=ROOT, env=environment,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    self.lasted = Counter()                 # phase -> seconds, when it was last seen from its beginning to its end

  def __enter__(self) -> 'Zygote':
    return self

  def __exit__(self, *_) -> None:
    self.process.stdin.close()
    self.process.wait(PATIENCE)

  def live(self, function: str, folder: Path, kill: Kill | None = None) -> tuple[int, list[str]]:
    """The exit status of one life in the folder (-9 if the kill came in time), and the phases that were open then."""
    print(function, folder, file=self.process.stdin, flush=True)
    child, opened, seen, due = 0, {}, Counter(), None
    for line in self.process.stdout:
      word, _, rest = line.strip().partition(' ')
      if word == 'dead':
        return int(rest), list(opened)
      if word == 'born':
        child = int(rest)
      elif word == '>':
        opened[rest] = time.monotonic()
        seen[rest] += 1
        if kill and (rest, seen[rest]) == (kill.phase, kill.nth):
          due = time.monotonic() + kill.share * self.lasted[rest]
      elif word == '<' and rest in opened:
        self.lasted[rest] = time.monotonic() - opened.pop(rest)
      if due is not None:
        time.sleep(max(0.0, due - time.monotonic()))
        os.kill(child, kill.number)
        kill = due = None
    raise AssertionError(f'the zygote ended: {self.process.wait()}')


def campaign(zygote: Zygote, function: str, folder: Path, kills: int, seed: int, phases: tuple[str, ...]) -> Campaign:
  """Kills `kills` lives, phases in turn, then lets one live to its end. Repeatable up to the machine's own timing."""
  rng = random.Random(seed)
  found = Campaign(seed)
  while found.killed.total() < kills:
    phase = phases[found.lives % len(phases)]
    nth = 1 if phase == 'restore' else rng.choice((1, 2))       # a life restores once
    status, opened = zygote.live(function, folder, Kill(phase, nth, rng.random()))
    found.lives += 1
    if status != -signal.SIGKILL:
      found.ended = status
      return found
    found.killed['+'.join(sorted(opened)) or 'step'] += 1
  found.ended, _ = zygote.live(function, folder)
  found.lives += 1
  return found
