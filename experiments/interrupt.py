"""Ctrl-C that is always heard: while Python still imports, and where Python drops what is raised.

It imports nothing of the project's and no JAX, for it is there before them.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

Given = TypeVar('Given')

INTERRUPTED = 128 + signal.SIGINT       # what a shell says of a program that Ctrl-C ended
AGAIN = 0.05                            # seconds: collecting garbage has ended by then, or else it comes once more


def leave_at_once() -> None:
  """From now on Ctrl-C ends the process with one line: while modules are imported nothing is there to be saved."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:     # a shell has it ignored in the background
    signal.signal(signal.SIGINT, _leave)


def heard(main: Callable[[Given], int]) -> Callable[[Given], int]:
  """`main`, in which Ctrl-C raises KeyboardInterrupt, as is usual, and once more if that was dropped.

  Python drops what is raised in a callback of its garbage collector, and JAX has one: where many objects are made, as in the
  preparation of text, one Ctrl-C in ten was lost.
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
  """Sends it again, from a thread: raised in here it would be dropped again."""
  if dropped.exc_type is not KeyboardInterrupt:
    return sys.__unraisablehook__(dropped)
  timer = threading.Timer(AGAIN, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
  timer.daemon = True
  timer.start()
