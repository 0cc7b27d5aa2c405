"""A lock that keeps a folder to one training at a time: two would each destroy what the other saved.

`lock.json` names the holder. The kernel holds a lock on that file as long as the holder lives, so a folder whose holder
was killed on this machine is free again at once; of a holder on another machine nothing can be known from here.
"""

import errno
import fcntl
import json
import logging
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from model.errors import StorageError
from train.lives import now, writable

log = logging.getLogger(__name__)

LOCK = 'lock.json'
BOOT = Path('/proc/sys/kernel/random/boot_id')
REFUSED = (errno.EACCES, errno.EAGAIN)                  # somebody holds it; anything else: no locks on this file system

_ours: set[Path] = set()      # the kernel does not keep a process from locking a file twice


class Lock:
  """Holds the folder while the `with` block runs. In a job of several processes the first holds it for all.

  Raises: StorageError `store.locked`, which names the holder and says what to do.
  """

  def __init__(self, folder: Path):
    self.path = Path(folder).resolve() / LOCK
    self.handle: int | None = None

  def __enter__(self) -> 'Lock':
    if jax.process_index() == 0:
      self._take()
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               trace: TracebackType | None) -> None:
    if self.handle is not None:
      os.ftruncate(self.handle, 0)
      os.close(self.handle)
      _ours.discard(self.path)
      self.handle = None

  def _take(self) -> None:
    if self.path in _ours:
      raise StorageError('store.locked', str(self.path.parent), 'this very process works in it already',
                         'leave the first training before the second begins')
    writable(self.path.parent)
    handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
      self._claim(handle)
    except BaseException:
      os.close(handle)
      raise
    self.handle = handle
    _ours.add(self.path)

  def _claim(self, handle: int) -> None:
    free = _lock(handle)
    holder = _holder(handle)
    if free is False or (holder and not _gone(holder, free is True)):
      raise self._locked(holder)
    if holder:
      log.warning('%s: process %s on %s took it at %s and is gone without having given it back; this one takes over',
                  self.path.parent, holder['pid'], holder['host'], holder['since'])
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(_me() | {'since': now()}).encode() + b'\n', 0)

  def _locked(self, holder: dict[str, Any]) -> StorageError:
    here = not holder or holder['host'] == socket.gethostname()
    who = f'process {holder["pid"]} on {holder["host"]}, since {holder["since"]}' if holder else 'another process'
    why = f'another training works in it: {who}' if here else f'a training on another machine took it: {who}'
    do = 'wait for it, end it, or launch with another --runs folder'
    return StorageError('store.locked', str(self.path.parent), why,
                        do if here else f'{do}. If that process is gone for certain, delete {self.path}')


def _lock(handle: int) -> bool | None:
  """Whether the kernel gives the lock; None where the file system has no locks."""
  try:
    fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except OSError as error:
    return False if error.errno in REFUSED else None


def _holder(handle: int) -> dict[str, Any]:
  """Who wrote the file last and did not empty it again; {} if nobody, or if it was killed while it wrote."""
  try:
    holder = json.loads(os.pread(handle, 4096, 0))
    return {name: holder[name] for name in ('pid', 'host', 'boot', 'since')}
  except (ValueError, KeyError, TypeError):
    return {}


def _me() -> dict[str, Any]:
  return {'pid': os.getpid(), 'host': socket.gethostname(), 'boot': BOOT.read_text().strip() if BOOT.exists() else ''}


def _gone(holder: dict[str, Any], locked: bool) -> bool:
  """Whether the holder is certainly dead: on this kernel if its lock is free; on this host if it has rebooted since."""
  me = _me()
  if holder['boot'] == me['boot'] and (me['boot'] or holder['host'] == me['host']):
    return locked or not _runs(holder['pid'])
  return holder['host'] == me['host']


def _runs(pid: Any) -> bool:
  try:
    os.kill(int(pid), 0)
  except (ProcessLookupError, ValueError, TypeError):
    return False
  except PermissionError:
    return True
  return True
