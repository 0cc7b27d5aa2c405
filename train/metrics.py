"""The metrics of each step, read one step late, so that logging never makes the device wait.

The loop hands over metrics that are still being computed. The recorder keeps them for one step, fetches them once, and
gives plain numbers to its consumers: the ledger, the metric files, the progress bar, the guard. Only the first step is
fetched at once: somebody waits to see it, and the peak that MFU refers to is measured while nothing else is computed.
"""

import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar
from tqdm import tqdm

from model.errors import NumericsError
from train.eval.ceiling import Peak
from train.types import Mean, State

FLUSH = 30.0          # seconds between two times that TensorBoard's file is forced to the disk


class Record(NamedTuple):
  """One finished step: its number, the mean of each metric, and the wall time since the step before, in seconds."""

  step: int
  values: dict[str, np.float32]
  seconds: float


Consumer = Callable[[Record], None]


class Recorder:
  """A hook that reads metrics one step late. `flush` reads the last ones now: call it before a save and at the end."""

  def __init__(self, consumers: Sequence[Consumer]):
    self.consumers = tuple(consumers)
    self.pending: tuple[int, dict[str, Mean]] | None = None
    self.last = time.perf_counter()
    self.first = True

  def __call__(self, step: int, state: State, metrics: dict[str, Mean]) -> None:
    self.flush()
    self.pending = step, metrics
    if self.first:
      self.first = False
      self.flush()
      self.pause()

  def flush(self) -> None:
    if self.pending is None:
      return
    step, metrics = self.pending
    self.pending = None
    values = {name: _value(mean) for name, mean in jax.device_get(metrics).items()}
    now = time.perf_counter()
    record = Record(step, values, now - self.last)
    self.last = now
    for consumer in self.consumers:
      consumer(record)

  def pause(self) -> None:
    """Leaves out of the next step's time what happened since the last record: an evaluation, a save."""
    self.last = time.perf_counter()


def _value(mean: Mean) -> np.float32:
  """The mean on the host, in float32: 0 where nothing was weighed. A weight that is no number stays no number."""
  total, weight = np.float32(mean.total), np.float32(mean.weight)
  return np.float32(0.0) if weight == 0 else total / weight


@dataclass(frozen=True)
class Pace:
  """Turns seconds a step into tokens/s and MFU. `measure` gives the machine's peak, and is called once, at the first step."""

  tokens: int            # per step, of the global batch
  flops: float           # model FLOPs per token, forward and backward
  measure: Callable[[], Peak]

  @functools.cached_property
  def peak(self) -> Peak:
    return self.measure()

  def __call__(self, seconds: float) -> dict[str, float]:
    rate = self.tokens / max(seconds, 1e-9)
    return {'tokens_per_s': rate, 'mfu': rate * self.flops / self.peak.flops}


@dataclass
class MetricsLog:
  """Appends a JSON line to `metrics.jsonl`, and scalars to TensorBoard, for the mean of every `every` steps.

  TensorBoard's own writer has a thread; had a full disk ended that, the run would wait for it for ever. So this one has none.
  """

  folder: Path
  every: int
  pace: Pace
  rate: Callable[[int], float]          # step -> learning rate
  window: list[Record] = field(default_factory=list)

  def __post_init__(self):
    (self.folder / 'tensorboard').mkdir(exist_ok=True)
    self.writer = EventsWriter(str(self.folder / 'tensorboard' / 'events'))
    self.flushed = 0.0                  # unix seconds

  def __call__(self, record: Record) -> None:
    self.window.append(record)
    if record.step % self.every == 0 or record.step == 1:
      seconds = float(np.median([r.seconds for r in self.window]))
      means = {name: float(np.mean([r.values[name] for r in self.window])) for name in record.values}
      self.write(record.step, means | {'lr': self.rate(record.step - 1), 'seconds': seconds} | self.pace(seconds))
      self.window.clear()

  def write(self, step: int, values: dict[str, float]) -> None:
    """One line: {"step": ..., "time": unix seconds, name: number, ...}."""
    now = time.time()
    line = {'step': step, 'time': round(now, 3)} | values
    with open(self.folder / 'metrics.jsonl', 'a') as file:
      file.write(json.dumps(line) + '\n')
    for name, value in values.items():
      self.writer.write_event(Event(step=step, wall_time=now, summary=scalar(name, value)))
    if now > self.flushed + FLUSH:
      self.writer.flush()
      self.flushed = now

  def close(self) -> None:
    self.writer.close()


@dataclass
class Progress:
  """A bar with loss, tokens/s, MFU and time left; plain lines where there is no terminal."""

  steps: int
  begin: int
  pace: Pace

  def __post_init__(self):
    self.bar = tqdm(total=self.steps, initial=self.begin, unit='step', dynamic_ncols=True, mininterval=0.5,
                    smoothing=0.1)
    self.seconds: float | None = None

  def __call__(self, record: Record) -> None:
    with unheard():
      self._show(record)

  def _show(self, record: Record) -> None:
    self.seconds = record.seconds if self.seconds is None else 0.9 * self.seconds + 0.1 * record.seconds
    pace = self.pace(self.seconds)
    self.bar.set_postfix_str(f'loss {record.values["loss"]:.3f}  {pace["tokens_per_s"]:,.0f} tok/s  MFU {pace["mfu"]:.0%}',
                             refresh=False)
    self.bar.update()

  def say(self, text: str) -> None:
    """Prints above the bar."""
    with unheard():
      self.bar.write(text)

  def close(self) -> None:
    with unheard():
      self.bar.close()


@contextmanager
def unheard() -> Iterator[None]:
  """Survives a closed stdout or stderr: from then on, all that is printed is thrown away.

  Ctrl-C also ends the `tee` that the run is piped into, and the run has yet to save.
  """
  try:
    yield
  except BrokenPipeError:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
      os.dup2(nowhere, stream)
    os.close(nowhere)


@dataclass
class Guard:
  """Counts steps whose loss or gradient is not finite. The optimizer skips them; more than `cap` in a row ends the run.

  `records` names the rows of a step's batch, so that the offending text can be looked at: they go to `nonfinite.jsonl`.
  """

  folder: Path
  cap: int
  records: Callable[[int], list[str]]
  streak: int = 0

  def __call__(self, record: Record) -> None:
    bad = sorted(name for name, value in record.values.items() if not np.isfinite(value))
    self.streak = self.streak + 1 if bad else 0
    if not bad:
      return
    rows = self.records(record.step)
    with open(self.folder / 'nonfinite.jsonl', 'a') as file:
      file.write(json.dumps({'step': record.step, 'metrics': bad, 'records': rows}) + '\n')
    if self.streak > self.cap:
      raise NumericsError('numerics.not-finite', f'step {record.step}: {", ".join(bad)}',
                          f'{self.streak} steps in a row were not finite and were skipped; the cap is {self.cap}. '
                          f'The last batch began with {rows[0]}',
                          'lower the learning rate, lengthen the warm-up, or look at those records')
