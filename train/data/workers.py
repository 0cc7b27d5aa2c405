"""Processes that prepare documents: they end with the process that they work for, and leave Ctrl-C to it.

They are spawned, not forked: the process that launches a run has threads of JAX in it.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from model.errors import PeerError

In = TypeVar('In')
Out = TypeVar('Out')


@contextmanager
def processes(count: int, equip: Callable[..., None] | None = None,
              given: tuple[Any, ...] = ()) -> Iterator[ProcessPoolExecutor]:
  """A pool of `count` processes, each of which first calls `equip(*given)`. When the block ends, so do they, busy or not."""
  context = _Context()
  pool = ProcessPoolExecutor(count, context, _begin, (equip, given))
  try:
    yield pool
  finally:
    for process in context.started:
      if process.is_alive():              # not one whose start was interrupted
        process.terminate()
    pool.shutdown(cancel_futures=True)


def in_order(pool: ProcessPoolExecutor, function: Callable[[In], Out], items: Iterable[In], ahead: int) -> Iterator[Out]:
  """`map` in the pool: the same results in the same order, and no more than `ahead` items on their way.

  Raises: PeerError `data.worker-gone` if a process is killed.
  """
  waiting: deque[Future[Out]] = deque()
  try:
    for item in items:
      waiting.append(pool.submit(function, item))
      if len(waiting) > ahead:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  except BrokenProcessPool as error:
    raise PeerError('data.worker-gone', 'a process that prepares documents', 'it was killed, perhaps because memory ran out',
                    'launch again, with fewer workers') from error


class _Process(SpawnProcess):
  """Starts with Ctrl-C blocked. A terminal sends it to all processes, and the one that deals the work says when it ends."""

  def start(self) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
      super().start()
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
  """Gives a pool such processes, and remembers them: the pool itself has no public list of its own."""

  def __init__(self) -> None:
    self.started: list[SpawnProcess] = []

  def Process(self, *args: Any, **named: Any) -> SpawnProcess:  # type: ignore[override]
    self.started.append(_Process(*args, **named))
    return self.started[-1]


def _begin(equip: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
  threading.Thread(target=_follow, daemon=True).start()
  if equip is not None:
    equip(*given)


def _follow() -> None:
  """Ends this process when its parent is gone: killed, it would leave a worker that waits for work for ever."""
  parent = multiprocessing.parent_process()
  assert parent is not None, 'it was spawned'
  parent.join()
  os._exit(1)
