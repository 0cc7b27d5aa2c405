"""One job on several processes: joining them, and making sure that they mean the same thing.

The coordinator that they meet at has no password. It listens on loopback when its address is there, else on the address
that was given: that must be a private one.
"""

import contextlib
import hashlib
import ipaddress
import json
import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from model.errors import ConfigError, PeerError
from train.artifact import Artifact, encode
from train.environment import environment

START, HEARTBEAT, SHUTDOWN = 120, 30, 15      # seconds to wait for peers; jax's own 300, 100, 300 hang a failed job

DISTRIBUTED = flags.DEFINE_bool('distributed', False, 'Join the other processes of the job, on a cluster that tells of '
                                'them (TPU pod, Slurm, GKE). Elsewhere give the next three instead.')
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0. It has no password: keep it private.')
PROCESSES = flags.DEFINE_integer('processes', None, 'How many processes the job has.', lower_bound=1)
PROCESS = flags.DEFINE_integer('process', None, 'The number of this process, from 0.', lower_bound=0)


class Place(NamedTuple):
  """This process among those of its job."""

  process: int = 0
  processes: int = 1


def join() -> Place:
  """Joins the job that the flags describe; alone where they describe none.

  Raises: ConfigError for flags that do not go together, PeerError where the others do not come.
  """
  coordinator, count, number = COORDINATOR.value, PROCESSES.value, PROCESS.value
  given = [value is not None for value in (coordinator, count, number)]
  if not DISTRIBUTED.value and not any(given):
    return Place()
  if any(given) and not all(given):
    raise ConfigError('config.distributed', '--coordinator, --processes, --process', 'one of the three is missing',
                      'give all three, or --distributed alone on a cluster that knows them')
  if count is not None and number is not None and number >= count:
    raise ConfigError('config.distributed', f'--process={number}', f'there are {count}, from 0 on',
                      f'give 0 to {count - 1}')
  try:
    jax.distributed.initialize(coordinator, count, number, coordinator_bind_address=_bind(coordinator),
                               initialization_timeout=START, heartbeat_timeout_seconds=HEARTBEAT,
                               shutdown_timeout_seconds=SHUTDOWN)
  except (RuntimeError, ValueError) as error:
    raise PeerError('distributed.no-start', f'--coordinator={coordinator}', str(error).splitlines()[0],
                    f'start all processes within {START} seconds, on a free port of process 0') from error
  return Place(jax.process_index(), jax.process_count())


def _bind(address: str | None) -> str | None:
  """Where the coordinator listens: jax would take every interface of the machine."""
  if address is None:
    return None
  host, _, port = address.rpartition(':')
  if not host or not port.isdecimal():
    raise ConfigError('config.distributed', f'--coordinator={address}', 'it must be HOST:PORT', 'give 127.0.0.1:9876')
  try:
    return address if host == 'localhost' or ipaddress.ip_address(host.strip('[]')) else None
  except ValueError:
    return None


def agree(config: Artifact) -> None:
  """Returns when every process has the same config and the same code; called before anything is made.

  Raises: PeerError that names the processes that differ from the first.
  """
  from jax.experimental import multihost_utils
  now = environment()
  for what, value in {'config': encode(config), 'code': now['code'], 'packages': now['packages']}.items():
    mine = np.frombuffer(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest(), np.uint8)
    theirs = np.asarray(multihost_utils.process_allgather(mine))
    odd = [index for index, digest in enumerate(theirs) if not np.array_equal(digest, theirs[0])]
    if odd:
      raise PeerError('distributed.other-' + what, f'{what} of process {", ".join(map(str, odd))}',
                      'it is not the same as on process 0', 'start all with the same flags, files and packages')


def cache_compilations() -> None:
  """Keeps compiled programs under the user's cache folder, so that a relaunch need not compile again.

  `JAX_COMPILATION_CACHE_DIR` says another place, `JAX_ENABLE_COMPILATION_CACHE=0` none. Small programs are kept too, which
  jax by itself does not: a start has several, of 10 to 500 ms each.
  """
  if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    jax.config.update('jax_compilation_cache_dir', str(Path(base) / 'athanor' / 'jax'))
  if jax.config.jax_persistent_cache_min_compile_time_secs == 1.0:  # type: ignore[attr-defined]  # as jax has it
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  drop_torn(Path(str(jax.config.jax_compilation_cache_dir)))  # type: ignore[attr-defined]


def drop_torn(cache: Path) -> None:
  """Removes what a process that was killed, or a full disk, left half-written among compiled programs.

  jax 0.10 writes an entry in place, and never over one that is there: each later start would warn of it and compile again.
  Only entries are read that were written since somebody last looked.
  """
  looked, fresh = cache / '.looked', cache / f'.looked.{os.getpid()}'
  with contextlib.suppress(OSError, ImportError):       # there is no cache yet, or one that may only be read
    from jax._src.compilation_cache import compress_executable, decompress_executable  # by whichever library jax found
    first = compress_executable(b'')[:1]                # an environment with another library may share the cache
    fresh.touch()                               # the file system's clock, which stamps the entries too
    since = looked.stat().st_mtime if looked.exists() else 0.0
    with os.scandir(cache) as entries:
      for path in [Path(each) for each in entries if each.name.endswith('-cache') and each.stat().st_mtime >= since]:
        entry = path.read_bytes()
        try:
          if entry[:1] in (b'', first):
            decompress_executable(entry)
        except Exception:                       # each library has an error of its own
          path.unlink(missing_ok=True)
    fresh.replace(looked)

