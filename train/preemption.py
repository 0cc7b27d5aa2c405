"""SIGTERM and SIGINT (Ctrl-C) as requests: the training finishes its step, saves, and exits with code 75.

Ctrl-C a second time leaves at once and saves nothing. That must work even while the main thread is inside a compilation
and Python runs no signal handlers; so a thread listens to the byte that the C handler writes.
"""

import os
import signal
import threading
from contextlib import suppress
from types import TracebackType

import jax
from jax.experimental import multihost_utils

INTERRUPTED = 128 + signal.SIGINT       # what a shell says of a program that Ctrl-C ended
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preemption:
  """While the `with` block runs, signals are requests and do not kill. To be entered in the main thread.

  In a job of several processes the signal may reach only one of them. JAX's coordination service then finds a step that
  all of them can still reach; it watches SIGTERM itself, and Ctrl-C is passed on to it as SIGTERM.
  """

  def __init__(self) -> None:
    self.told = False

  def asked(self, step: int) -> bool:
    """Whether to save and leave after this step: to be called once a step, by every process with the same step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self.told

  def __enter__(self) -> 'Preemption':
    self.signals = SIGNALS if jax.process_count() == 1 else (signal.SIGINT,)
    self.reader, self.writer = os.pipe()
    os.set_blocking(self.writer, False)
    self.wakeup = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)       # or a signal that comes now would be lost
    self.handlers = {number: signal.signal(number, _wake) for number in self.signals}
    threading.Thread(target=self._listen, args=(self.reader,), name='signals', daemon=True).start()
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               trace: TracebackType | None) -> None:
    for number, handler in self.handlers.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(self.wakeup)
    os.close(self.writer)                   # ends the thread, which closes the other end

  def _listen(self, reader: int) -> None:
    while data := os.read(reader, 1):
      if data[0] in self.signals:
        self._note(signal.Signals(data[0]))
    os.close(reader)

  def _note(self, number: signal.Signals) -> None:
    if number == signal.SIGINT and self.told:
      _say('leaving at once; steps since the last save will be done again')
      os._exit(INTERRUPTED)
    first, self.told = not self.told, True
    if first:
      _say(f'{number.name}: saving after this step, then leaving. Ctrl-C once more leaves at once')
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)


def _wake(number: int, frame: object) -> None:
  """There only because Python's C handler writes no byte for a signal that has no Python handler."""


def _say(text: str) -> None:
  with suppress(OSError):                 # nobody may read it any more: Ctrl-C ends the `tee` behind a pipe too
    os.write(2, f'\n{text}\n'.encode())   # the interpreter's own streams may be held by the main thread
