"""What the parts of the GPU benchmark share: where they write, how long they may take, and programs that tell as they go."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from experiments.bench.driver import ROOT, Contestant

Record = dict[str, Any]
MOST = 120                             # seconds of a contestant, its compiling included
CARD = 'name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit,temperature.gpu'


@lru_cache
def card() -> str:
  """What nvidia-smi says of the first card, its name first; '' where there is none."""
  with suppress(OSError, subprocess.TimeoutExpired):
    said = subprocess.run(['nvidia-smi', f'--query-gpu={CARD}', '--format=csv,noheader'], capture_output=True, text=True,
                          timeout=20, check=False)
    return said.stdout.strip().partition('\n')[0]
  return ''


class Ended(RuntimeError):
  """A program did not end well; the text says how, and the last that it wrote."""


@dataclass
class Bench:
  """`folder` goes away afterwards, `out` stays. `end` is when the part that runs must be over.

  `first` are the losses of each size's first contestant, which those of all others are held against.
  """

  out: Path
  folder: Path
  peers: str                          # interpreters
  litgpt: str
  quick: bool
  end: float
  first: dict[str, list[float]] = field(default_factory=dict)

  @property
  def left(self) -> float:
    """Seconds that are left to the part."""
    return max(1.0, self.end - time.monotonic())

  @property
  def caches(self) -> dict[str, str]:
    """Where compiled programs are kept between the contestants of one call."""
    return self.caches_of('all')

  def caches_of(self, name: str) -> dict[str, str]:
    """The same, with a folder of its own for what torch.compile keeps: two that share one have spoiled each other's."""
    return {'JAX_COMPILATION_CACHE_DIR': str(self.folder / 'jax'),
            'TORCHINDUCTOR_CACHE_DIR': str(self.folder / f'inductor-{name.replace(" ", "-")}')}

  def room(self, name: str) -> Path:
    """A folder for a part, new or as it was left."""
    path = self.folder / name
    path.mkdir(exist_ok=True)
    return path

  def limited(self, contestant: Contestant) -> Contestant:
    """It may take what is left to the part, but not so much that one that hangs costs all others their turn."""
    return replace(contestant, patience=self.left if self.quick else min(self.left, MOST))

  def program(self, module: str, *arguments: str, python: str = sys.executable) -> Iterator[Record]:
    """The JSON lines that `python -m module` prints, each as it comes. Raises: Ended."""
    for line in self.lines([python, '-m', module, *arguments], module.rpartition('.')[2]):
      if line.startswith('{'):
        yield json.loads(line)

  def lines(self, command: Sequence[str], log: str, environment: Mapping[str, str] = {}) -> Iterator[str]:
    """What a command prints, line by line; both streams are kept in `out`. Raises: Ended where it fails or takes too long."""
    path = self.out / f'{log}.log'
    with path.open('w') as file, started(command, file, {**environment, **self.caches}, self.left) as process:
      assert process.stdout
      for line in process.stdout:
        file.write(line)
        file.flush()
        yield line.rstrip('\n')
    if process.returncode:
      raise Ended(f'{" ".join(command)[:120]} ended with {process.returncode}:\n{path.read_text()[-2000:]}')


@contextmanager
def started(command: Sequence[str], errors: Any, environment: Mapping[str, str], patience: float) -> Iterator[Any]:
  """A process of a session of its own, which ends with the block or after so many seconds, with all that it started."""
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True,
                             env={**os.environ, **environment}, start_new_session=True)
  alarm = threading.Timer(patience, end, (process,))
  alarm.start()
  try:
    yield process
    process.wait()
  finally:
    alarm.cancel()
    end(process)
    process.wait()


def end(process: Any) -> None:
  """Ends a process and those that it started."""
  with suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
