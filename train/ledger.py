"""A log of a training that can be checked: `ledger.jsonl` has each step's loss to the last bit, in the order it happened.

    {"life": {"packages": {"jax": "0.10.2", ...}, "mesh": ..., ...}}          what the bits depend on, at each start
    {"step": 1, "loss": "0x1.0a3d70p+3", "grad_norm": "0x1.8p+0"}             hexadecimal floats hold every bit

Lines are only ever appended. A run that was killed resumes from an earlier save and repeats some steps; in the same
environment they must give the same bits, and the ledger stops the run if they do not.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from model.errors import DataError, NumericsError, StorageError
from train.environment import differences

log = logging.getLogger(__name__)

LEDGER = 'ledger.jsonl'
Values = dict[str, str]                   # name -> hexadecimal float


@dataclass
class Life:
  """What one start of a run wrote: its environment and its steps, each with the values that it had last."""

  environment: dict[str, Any]
  steps: dict[int, Values] = field(default_factory=dict)


class Ledger:
  """Appends to `ledger.jsonl` in a folder. `environment` is all that the bits depend on beside the run's own config.

  A step that an earlier life did under the same `environment` must come out the same.

  Raises: DataError `ledger.bad-line` where the file is damaged.
  """

  def __init__(self, folder: Path, environment: Mapping[str, Any]):
    self.path = Path(folder) / LEDGER
    self.environment = json.loads(json.dumps(environment))
    self.past = merged(lives(self.path) if self.path.exists() else [])
    self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    size = os.fstat(self.handle).st_size
    if size and os.pread(self.handle, 1, size - 1) != b'\n':
      self._append('')                    # the last life was killed while it wrote a line
    self._append(json.dumps({'life': self.environment}))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds a step, which is on record once this returns (a kill loses nothing; a power cut may lose some lines).

    Raises: NumericsError `numerics.replay` if the step was done before under the same circumstances and came out
    differently; StorageError `store.full` if it cannot be written.
    """
    exact = {name: float(value).hex() for name, value in values.items()}
    self._append(json.dumps({'step': step, **exact}))
    before = self.past.pop(step, None)
    if before is not None and before.values != exact:
      self._differs(step, before, exact)

  def _differs(self, step: int, before: 'Entry', exact: Values) -> None:
    changed = differences(before.environment, self.environment)
    told = _tell(before.values, exact)
    if changed:
      self.past.clear()
      log.warning('step %d is done again and differs in bits, which was to be expected: %s changed. %s', step,
                  ', '.join(changed), told)
    else:
      raise NumericsError('numerics.replay', f'step {step} of {self.path}: {told}',
                          'it was done before by the same code on the same kind of machine, and must give the same '
                          'bits: memory, processor or data is not what it was',
                          'look at the machine and the data. Launched again, the step is compared with what it was now')

  def _append(self, line: str) -> None:
    data = line.encode() + b'\n'
    try:
      written = os.write(self.handle, data)
    except OSError as error:
      raise self._unwritten(str(error.strerror)) from error
    if written != len(data):
      raise self._unwritten(f'only {written} of {len(data)} bytes went into it')

  def _unwritten(self, why: str) -> StorageError:
    return StorageError('store.full', str(self.path), why, 'make room and launch again: it goes on from the last save')

  def close(self) -> None:
    os.close(self.handle)

  def __enter__(self) -> 'Ledger':
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               trace: TracebackType | None) -> None:
    self.close()


@dataclass(frozen=True)
class Entry:
  """A step as it came out last, and in which environment."""

  values: Values
  environment: dict[str, Any]


def lives(path: Path) -> list[Life]:
  """The lives in a ledger file, in order. The last line of each may be torn by a crash, and is then skipped.

  Raises: DataError `ledger.bad-line` for any other line that cannot be read; StorageError if the file cannot.
  """
  found: list[Life] = []
  torn: DataError | None = None
  for number, line in enumerate(_lines(path), 1):
    if not line:
      continue
    entry = _parse(line)
    if torn is not None and not (entry and 'life' in entry):
      raise torn
    torn = None
    if entry is None or (not found and 'life' not in entry):
      torn = DataError('ledger.bad-line', f'{path}:{number}', f'{line[:60]!r} is no line of a ledger',
                       'the file was damaged: remove the line, or move the file away')
    elif 'life' in entry:
      found.append(Life(entry['life']))
    else:
      found[-1].steps[entry.pop('step')] = entry
  return found


def _lines(path: Path) -> list[bytes]:
  try:
    return path.read_bytes().split(b'\n')
  except OSError as error:
    raise StorageError('store.unreadable', str(path), str(error.strerror), 'name a folder with a ledger') from error


def _parse(line: bytes) -> dict[str, Any] | None:
  """The line, if it is one that a ledger has."""
  try:
    entry = json.loads(line)
    if isinstance(entry['life'] if 'life' in entry else entry['step'], dict if 'life' in entry else int):
      for name in entry.keys() - {'life', 'step'}:
        float.fromhex(entry[name])
      return entry
  except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
    pass
  return None


def merged(record: list[Life]) -> dict[int, Entry]:
  """Each step as it came out last."""
  return {step: Entry(values, life.environment) for life in record for step, values in life.steps.items()}


def _show(value: str | None) -> str:
  return 'absent' if value is None else f'{float.fromhex(value):.9g} ({value})'


@dataclass(frozen=True)
class Comparison:
  """Two ledgers of what should be one training."""

  steps: int                              # that are in both
  alone: tuple[int, int]                  # steps that only the first has, and only the second
  first: int | None                       # the first step that differs in bits
  told: str                               # how it differs
  largest: float                          # difference between two losses of one step
  changed: dict[str, tuple[Any, Any]]     # in the environments of the last lives: then other bits mean nothing

  @property
  def equal(self) -> bool:
    """Whether there is something to compare, and it is the same to the bit."""
    return self.steps > 0 and self.first is None


def compare(one: Path, other: Path) -> Comparison:
  """How the steps that two ledgers (paths of files) both have differ.

  Raises: StorageError or DataError where one cannot be read.
  """
  records = lives(one), lives(other)
  a, b = (merged(record) for record in records)
  both = sorted(a.keys() & b.keys())
  differing = [step for step in both if a[step].values != b[step].values]
  before, now = (record[-1].environment if record else {} for record in records)
  first = differing[0] if differing else None
  return Comparison(len(both), (len(a.keys() - b.keys()), len(b.keys() - a.keys())), first,
                    '' if first is None else _tell(a[first].values, b[first].values),
                    max((_apart(a[step].values, b[step].values) for step in differing), default=0.0),
                    differences(before, now))


def _tell(before: Values, now: Values) -> str:
  names = [name for name in dict.fromkeys((*before, *now)) if before.get(name) != now.get(name)]
  return ', '.join(f'{name} was {_show(before.get(name))} and is {_show(now.get(name))}' for name in names)


def _apart(a: Values, b: Values) -> float:
  return abs(float.fromhex(a.get('loss', 'nan')) - float.fromhex(b.get('loss', 'nan')))
