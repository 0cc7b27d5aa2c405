"""Ctrl-C handling for the commands: a clean exit during imports, and no lost interrupts later.

Imported before JAX and the rest of the project, so it imports neither.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

Given = TypeVar('Given')

INTERRUPTED = 128 + signal.SIGINT       # the exit code that shells report for a program ended by Ctrl-C
AGAIN = 0.05                            # seconds until the signal is sent again: usually the garbage collector is done by then


def leave_at_once() -> None:
  """From now on Ctrl-C exits at once with one line: for the time of imports, when there is nothing to save yet."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:     # background jobs of a shell ignore SIGINT: leave that
    signal.signal(signal.SIGINT, _leave)


def heard(main: Callable[[Given], int]) -> Callable[[Given], int]:
  """`main` with Ctrl-C raising KeyboardInterrupt, as usual, and raising it again where Python dropped it.

  Python drops exceptions raised in callbacks of its garbage collector, and JAX installs one: where many objects are created,
  as in the preparation of text, one Ctrl-C in ten was lost.
  """
  def run(given: Given) -> int:
    if signal.getsignal(signal.SIGINT) is _leave:
      signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.unraisablehook = _once_more
    return main(given)
  return run


def _leave(number: int, frame: object) -> None:
  os.write(2, b'interrupted: nothing was begun yet\n')
  os._exit(INTERRUPTED)


def _once_more(dropped: 'sys.UnraisableHookArgs') -> None:
  """An unraisable hook that sends SIGINT again, from a thread: raised in the hook itself it would be dropped again."""
  if dropped.exc_type is not KeyboardInterrupt:
    return sys.__unraisablehook__(dropped)
  timer = threading.Timer(AGAIN, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
  timer.daemon = True
  timer.start()
