"""Threads that nothing waits for: the caller may stop waiting for slow work, and the process may end while it hangs.

Python's own thread pools are joined when the process ends, however they are closed, so one hanging request would hold it for
ever.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

In = TypeVar('In')
Out = TypeVar('Out')

_threads: 'weakref.WeakSet[threading.Thread]' = weakref.WeakSet()


def begin(function: Callable[[In], Out], item: In, name: str) -> 'Future[Out]':
  """A future of function(item), which runs in a new thread of that name; it holds the result or what was raised."""
  future: Future[Out] = Future()
  thread = threading.Thread(target=_do, args=(function, item, future), name=name, daemon=True)
  _threads.add(thread)
  thread.start()
  return future


def busy() -> bool:
  """Whether work that was begun is still going on. Then end with `os._exit`: JAX in such a thread aborts a usual exit."""
  return any(thread.is_alive() for thread in _threads)


def each(function: Callable[[In], Out], items: Sequence[In], at_once: int, name: str) -> list[Out]:
  """function(item) for each item, in their order, `at_once` of them at a time.

  The first failure is raised, as is Ctrl-C, without waiting for items that are being worked on; the others are not begun.
  """
  futures: list[Future[Out]] = [Future() for _ in items]
  waiting = iter(zip(items, futures))
  turn, over = threading.Lock(), threading.Event()

  def work(_: None) -> None:
    while not over.is_set():
      with turn:
        taken = next(waiting, None)
      if taken is None:
        return
      _do(function, *taken)

  try:
    for _ in range(min(at_once, len(items))):
      begin(work, None, name)
    return [future.result() for future in futures]
  finally:
    over.set()


def _do(function: Callable[[In], Out], item: In, future: 'Future[Out]') -> None:
  try:
    future.set_result(function(item))
  except BaseException as error:      # as pools do: whoever waits for the result has to hear of it
    future.set_exception(error)
