"""Work in threads that nobody has to wait for: whoever asked for it may leave, and the process may end, though it hangs.

Python's own pools are waited for when the process ends, however they are closed.
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
  """What `function` makes of the item, in a thread of that name; its result or what it raised comes with the future."""
  future: Future[Out] = Future()
  thread = threading.Thread(target=_do, args=(function, item, future), name=name, daemon=True)
  _threads.add(thread)
  thread.start()
  return future


def busy() -> bool:
  """Whether something that was begun still goes on. Then end with `os._exit`: JAX in such a thread aborts a usual exit."""
  return any(thread.is_alive() for thread in _threads)


def each(function: Callable[[In], Out], items: Sequence[In], at_once: int, name: str) -> list[Out]:
  """What `function` makes of each item, in their order, so many at a time.

  The first failure is raised, as is Ctrl-C, without waiting for those that are being done; what waits is not begun.
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
