"""What a run depends on besides its config: code, packages, machine. Written down at the start of each life.

Bits repeat only where all of this is equal; `differences` says what is not.
"""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from train.canonical import ROOMS

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'sentencepiece')
SETTINGS = ('jax_enable_x64', 'jax_default_prng_impl', 'jax_default_matmul_precision', 'jax_threefry_partitionable')
ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict[str, Any]:
  """Code version, packages and compiler flags, as JSON. Starts no device."""
  return {
      'code': code(),
      'python': platform.python_version(),
      'packages': {name: _version(name) for name in PACKAGES},
      'system': f'{platform.system()} {platform.machine()}',
      'processor': _processor(),
      'flags': {name: os.environ[name] for name in ('XLA_FLAGS', 'LIBTPU_INIT_ARGS') if os.environ.get(name)},
  }


def devices() -> dict[str, Any]:
  """What computes: `{'backend': 'cpu', 'kind': 'cpu', 'count': 8, 'processes': 1}`. Starts the devices."""
  import jax
  return {'backend': jax.default_backend(), 'kind': jax.devices()[0].device_kind, 'count': jax.device_count(),
          'processes': jax.process_count(),
          'settings': {name: getattr(jax.config, name) for name in SETTINGS}}


@functools.cache
def code() -> dict[str, Any]:
  """The commit, and the first digits of a sha256 of uncommitted changes: `{'commit': ..., 'changes': None}`.

  These are changes in tracked files, and untracked Python files in the rooms, whose classes a run may use.
  """
  commit = _git('rev-parse', 'HEAD')
  changes = (_git('diff', 'HEAD') or '') + _new_files() if commit else ''
  return {'commit': commit, 'changes': hashlib.sha256(changes.encode()).hexdigest()[:12] if changes else None}


def _new_files() -> str:
  """A line with name and sha256 for each untracked Python file; '' without any."""
  names = _git('ls-files', '-z', '--others', '--exclude-standard', '--', *(f'{room}/*.py' for room in ROOMS)) or ''
  files = [name for name in names.split('\0') if (ROOT / name).is_file()]
  return ''.join(f'{name} {hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}\n' for name in files)


def _git(*words: str) -> str | None:
  """What git prints for this project; None without git, or if the project is no clone."""
  command = ['git', '-C', str(ROOT), *words]
  try:
    done = subprocess.run(command, capture_output=True, text=True, errors='replace', timeout=20, check=False)
  except (OSError, subprocess.TimeoutExpired):
    return None
  return done.stdout.strip() or None if done.returncode == 0 else None


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _processor() -> str | None:
  """A short digest of the processor's instruction sets, which decide how XLA vectorises and so the last bits."""
  if sys.platform != 'linux':
    return platform.processor() or None
  try:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return None
  flags = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  return hashlib.sha256(' '.join(sorted(flags.split())).encode()).hexdigest()[:12]


def differences(old: Any, new: Any, path: str = '') -> dict[str, tuple[Any, Any]]:
  """Where two JSON trees differ: `{'packages.jax': ('0.10.2', '0.11.2')}`; None stands for what is absent."""
  if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
    old, new = dict(enumerate(old)), dict(enumerate(new))
  if isinstance(old, dict) and isinstance(new, dict):
    found: dict[str, tuple[Any, Any]] = {}
    for name in (*old, *(name for name in new if name not in old)):
      found |= differences(old.get(name), new.get(name), f'{path}.{name}' if path else str(name))
    return found
  return {} if old == new else {path: (old, new)}
