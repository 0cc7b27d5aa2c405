"""A chat template's own process, as the rest of the project sees it: conversations in, texts out, or one clear error.

The process is started anew rather than forked, for JAX's threads do not survive a fork; it is kept for the next
conversation, and one that broke a limit, or whose answer nobody waited for, is replaced. Linux alone holds a process to a
limit of its memory.
"""

import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any, NamedTuple

from model.errors import ConfigError, DataError, UserError

WORKER = Path(__file__).with_name('jinja_worker.py')
SECONDS = 1                              # of CPU for one conversation, whole ones: it gets up to two
MEMORY = 256 << 20                       # bytes
LONGEST = 1 << 18                        # characters that a template writes of its own
PATIENCE = 60.0                          # seconds of the clock: a machine may be busy with other things
SHORT_LIVED = ('LD_LIBRARY_PATH',)       # all of the environment that the child may see: where Python's libraries are


class Job(NamedTuple):
  """A conversation to be written, and whether up to where the assistant begins."""

  messages: tuple[tuple[str, str], ...]
  ask: bool


class Gone(Exception):
  """The process ended, or did not answer in time."""


class Process:
  """A template in a process of its own. Threads take turns."""

  def __init__(self, source: str, date: str):
    self.first = {'source': source, 'date': date, 'seconds': SECONDS, 'longest': LONGEST, 'memory': MEMORY}
    self.lock = threading.Lock()
    self.child: subprocess.Popen | None = None

  def write(self, job: Job, variables: dict[str, str]) -> str:
    """The text. Raises: ConfigError for a template that is no Jinja, DataError for what else it does wrong."""
    with self.lock:
      try:
        answer = self._ask(job._asdict() | {'variables': variables})
      except Gone as error:
        raise limit(str(error)) from None
    if 'text' not in answer:
      raise failure(answer['kind'], answer['said'], answer['line'])
    return answer['text']

  def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
    """What the child answers. Until it has answered it is nobody's: an interrupt leaves none whose answer is yet to come."""
    child, self.child = self.child, None
    try:
      if child is None or child.poll() is not None:
        child = _start()
        weakref.finalize(self, _end, child, os.getpid())
        _talk(child, self.first)
      answer = _talk(child, request)
    except BaseException:
      if child is not None:
        _end(child, os.getpid())
      raise
    self.child = child
    return answer


@functools.lru_cache(maxsize=8)
def process_of(source: str, date: str, pid: int) -> Process:
  """The process of a template, one for each process that asks (`os.getpid()`): a forked one may not share a pipe."""
  return Process(source, date)


def _start() -> subprocess.Popen:
  """A child in a process group of its own: Ctrl-C at a terminal goes to the whole group of the command."""
  return subprocess.Popen([sys.executable, '-I', str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, process_group=0,
                          env={name: os.environ[name] for name in SHORT_LIVED if name in os.environ})


def _end(child: subprocess.Popen, parent: int) -> None:
  """Ends a child of this process; one that was inherited by a fork is another's."""
  if parent != os.getpid():
    return
  child.kill()
  child.wait()
  for pipe in (child.stdin, child.stdout):
    if pipe:
      with contextlib.suppress(BrokenPipeError):       # of a question that was not wholly sent
        pipe.close()


def _talk(child: subprocess.Popen, line: dict[str, Any]) -> dict[str, Any]:
  """What the child answers. Raises: Gone if it ends before that, or is silent for too long."""
  assert child.stdin and child.stdout, 'it was started with pipes'
  written = json.dumps(line).encode() + b'\n'
  most = 12 * (len(written) + LONGEST)        # a character may be written as twelve
  try:
    child.stdin.write(written)
    child.stdin.flush()
  except BrokenPipeError:
    raise Gone(_ended(child)) from None
  try:
    return json.loads(_line(child, child.stdout.fileno(), most))
  except ValueError:
    raise Gone('it answered with something else than was agreed') from None


def _line(child: subprocess.Popen, pipe: int, most: int) -> bytes:
  """The next line, of at most so many bytes. `select` would not do: it knows no files above 1023, and a server has more."""
  until, data, ready = time.monotonic() + PATIENCE, bytearray(), select.poll()
  ready.register(pipe)
  while not data.endswith(b'\n'):
    if not ready.poll(max(0.0, until - time.monotonic()) * 1000):
      raise Gone(f'it did not answer for {PATIENCE:g} seconds')
    part = os.read(pipe, 1 << 16)
    if not part:
      raise Gone(_ended(child))
    data += part
    if len(data) > most:
      raise Gone(f'it answered with more than {most:,} bytes')
  return bytes(data)


def _ended(child: subprocess.Popen) -> str:
  """Why a child is no more, for a person."""
  code = child.wait(PATIENCE)
  if code == -signal.SIGXCPU:
    return f'it worked for more than {SECONDS} second of CPU'
  return f'its process ended, {signal.Signals(-code).name if code < 0 else f"with code {code}"}'


def limit(said: str) -> DataError:
  return DataError('chat.template-limit', 'the chat template', said,
                   f'use a template that does with {SECONDS} second of CPU, {MEMORY >> 20} MiB and {LONGEST:,} characters')


def failure(kind: str, said: str, line: int | None) -> UserError:
  """The error that a person sees."""
  place = 'the chat template' if line is None else f'the chat template, line {line}'
  match kind:
    case 'limit':
      return DataError('chat.template-limit', place, *limit(said).args[2:])
    case 'syntax':
      return ConfigError('chat.template-syntax', place, said, 'mend it, or use one as it was published')
    case 'refuses':
      return DataError('chat.template-refuses', place, f'it refuses the conversation: {said}', 'do as it says')
    case 'undefined':
      return DataError('chat.template-undefined', place, said, 'use a template that needs no more than messages (role and '
                       'content), add_generation_prompt, and the names of bos, eos and pad')
    case 'forbidden':
      return DataError('chat.template-forbidden', place, said, 'a template may read messages and write text, and no more')
  return DataError('chat.template-fails', place, said, 'mend it, or use one as it was published')
