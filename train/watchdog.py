"""Ends a training that hangs: on a peer, on a disk that never answers, in a deadlock.

A step that takes 20 times the median, and a minute at least, is taken to be stuck: every thread's stack is printed, and
the process ends with exit code 69, so that whoever launched it can launch it again. Until one was timed nobody knows how long
a step takes, minutes on a slow machine: the first may take an hour.
"""

import faulthandler
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from types import TracebackType

from model.errors import PeerError


class Watchdog:
  """Watches in a `with` block that a beat follows each beat. Before the first, all may take its time (compilation)."""

  def __init__(self, least: float = 60.0, factor: float = 20.0, first: float = 3600.0):
    self.least, self.factor, self.first = least, factor, first
    self.durations: deque[float] = deque(maxlen=101)      # seconds
    self.last: float | None = None                        # when the last beat was; None while nothing is expected
    self.asleep = 0.0                                     # seconds that it was stopped; the watching thread alone writes it
    self.over = threading.Event()

  def beat(self) -> None:
    """A step is done."""
    now, last = self._awake(), self.last
    if last is not None:
      self.durations.append(now - last)
    self.last = now

  @contextmanager
  def rest(self) -> Iterator[None]:
    """While this block runs nothing is expected: an evaluation, a last save."""
    self.last = None
    yield
    self.last = None

  @property
  def limit(self) -> float:
    """Seconds that a step may take."""
    return max(self.least, self.factor * median(self.durations)) if self.durations else max(self.least, self.first)

  def __enter__(self) -> 'Watchdog':
    threading.Thread(target=self._watch, name='watchdog', daemon=True).start()
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               trace: TracebackType | None) -> None:
    self.over.set()

  def _watch(self) -> None:
    pause, woke = min(1.0, self.least / 4), time.monotonic()
    while not self.over.wait(pause):
      now = time.monotonic()
      asleep, woke = max(now - woke - pause, 0.0), now      # a process that was stopped (Ctrl-Z) did not stand still by itself
      if asleep > pause:
        self.asleep += asleep
      last = self.last
      if last is not None and (still := now - self.asleep - last) > self.limit:
        self._end(still)

  def _awake(self) -> float:
    """The clock less the time that the process was stopped, in seconds."""
    asleep = self.asleep                    # first: a stop between the two gives the step more time, not less
    return time.monotonic() - asleep

  def _end(self, seconds: float) -> None:
    why = f'the limit is {self.limit:.0f} s; a process, the disk or the data hangs: all stacks stand above'
    try:
      faulthandler.dump_traceback(2, all_threads=True)
      print(PeerError('peer.stuck', f'no step was done for {seconds:.0f} s', why,
                      'launch again: it goes on from the last save'), file=sys.__stderr__, flush=True)
    finally:
      os._exit(PeerError.exit_code)
