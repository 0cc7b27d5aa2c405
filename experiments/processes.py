"""Multi-process jobs: joins the processes through jax.distributed, and checks that all have the same config and code.

The coordinator, in process 0, has no password. Where --coordinator is an IP address or localhost it listens on that alone; the
address must be a private one.
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
  """The index of this process, and the number of processes of its job."""

  process: int = 0
  processes: int = 1


def join() -> Place:
  """Joins the job that the flags describe: this process's place in it; Place() without such flags.

  Raises: ConfigError for flags that do not go together, PeerError where the other processes do not join in time.
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
  """The address on which the coordinator listens, None for jax's default: all interfaces of the machine."""
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
  """Checks that all processes have the same config, code and packages, before anything is made.

  Raises: PeerError that names the processes that differ from process 0.
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
  """Turns on jax's compilation cache in the user's cache folder, so that the next launch need not compile again.

  `JAX_COMPILATION_CACHE_DIR` sets another folder, `JAX_ENABLE_COMPILATION_CACHE=0` turns it off. Small programs are cached too,
  unlike jax's default: each launch has several that take 10 to 500 ms to compile.
  """
  if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    jax.config.update('jax_compilation_cache_dir', str(Path(base) / 'athanor' / 'jax'))
  if jax.config.jax_persistent_cache_min_compile_time_secs == 1.0:  # type: ignore[attr-defined]  # as jax has it
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  drop_torn(Path(str(jax.config.jax_compilation_cache_dir)))  # type: ignore[attr-defined]


def drop_torn(cache: Path) -> None:
  """Deletes entries of the compilation cache that a killed process or a full disk left incomplete.

  jax 0.10 writes entries in place and never overwrites one, so each later launch would warn about it and compile again. Only
  entries written since the last such check are read.
  """
  looked, fresh = cache / '.looked', cache / f'.looked.{os.getpid()}'
  with contextlib.suppress(OSError, ImportError):       # there is no cache yet, or it is read-only
    from jax._src.compilation_cache import compress_executable, decompress_executable  # by zstandard or zlib
    first = compress_executable(b'')[:1]                # an environment with another library may share the cache
    fresh.touch()                               # its mtime is by the file system's clock, as those of entries are
    since = looked.stat().st_mtime if looked.exists() else 0.0
    with os.scandir(cache) as entries:
      for path in [Path(each) for each in entries if each.name.endswith('-cache') and each.stat().st_mtime >= since]:
        entry = path.read_bytes()
        try:
          if entry[:1] in (b'', first):
            decompress_executable(entry)
        except Exception:                       # each compression library has its own error
          path.unlink(missing_ok=True)
    fresh.replace(looked)

