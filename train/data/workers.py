"""Processes that prepare documents: they end with the process that they work for, and leave Ctrl-C to it.

They are spawned, not forked: the process that launches a run has threads of JAX in it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any


def processes(count: int, equip: Callable[..., None] | None = None, given: tuple[Any, ...] = ()) -> ProcessPoolExecutor:
  """`count` of them, each of which first calls `equip(*given)`."""
  return _Pool(count, multiprocessing.get_context('spawn'), _begin, (equip, given))


class _Pool(ProcessPoolExecutor):
  """Starts its processes, which it does when work comes, with Ctrl-C blocked, and so it is for them from the first moment on.

  A terminal sends it to all of them, and who deals the work says when it ends.
  """

  def submit(self, *work: Any, **named: Any) -> Future[Any]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
      return super().submit(*work, **named)
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, before)

  def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
    """Ends them: when all came to an end they do nothing, and else nobody waits for what they do."""
    for process in list((self._processes or {}).values()):
      process.terminate()
    super().shutdown(wait, cancel_futures=True)


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
