"""The pipeline that feeds a run: rows, stages, batches and the way to the devices, by Grain, two batches ahead.

Batch s holds the rows s * batch .. (s + 1) * batch - 1 of `Visits`, of which each process makes those that its devices
hold. So the position of a pipeline is a step, and it is the same on any number of processes and devices.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from model.errors import CheckpointError, ConfigError, DataError
from model.sharding import BATCH_AXES, batch_sharding
from train.data.visits import Row, RowStage
from train.environment import differences
from train.types import Batch, Position, State

STEPS = 1 << 40         # Grain wants to know a length; no run will come so far


class Order(Protocol):
  """An endless sequence of rows, like `Visits`: row g is a function of g and of the `definition` (JSON) alone."""

  definition: dict[str, Any]
  length: int

  @property
  def rows(self) -> int: ...       # after which each has been read once
  def __getitem__(self, number: int) -> Row: ...
  def describe(self, number: int) -> str: ...


class Placement:
  """Puts the rows of this process on its devices, as parts of global arrays: row i of each array is row i of the batch.

  Raises: ConfigError if the batch does not divide into the mesh.
  """

  def __init__(self, mesh: Mesh, batch: int):
    groups = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if batch % groups:
      nearest = {max(batch // groups, 1) * groups, (batch // groups + 1) * groups}
      raise ConfigError('batch.indivisible', f'a batch of {batch} rows on {groups} groups of devices',
                        'each of the data x fsdp groups takes the same number of rows',
                        f'use a batch of {" or ".join(map(str, sorted(nearest)))}')
    self.batch, self.sharding = batch, batch_sharding(mesh)
    self.rows = held(self.sharding, batch, self.sharding.addressable_devices)

  def __call__(self, rows: Row) -> Batch:
    """Global arrays of `batch` rows from those that this process holds."""
    return {name: self._laid(value) for name, value in rows.items()}

  def _laid(self, value: np.ndarray) -> jax.Array:
    if self.sharding.is_fully_addressable:
      return jax.device_put(value, self.sharding)
    shape = (self.batch, *value.shape[1:])

    def part(index: Any) -> np.ndarray:
      return value[np.searchsorted(self.rows, _span(index, shape))]

    return jax.make_array_from_callback(shape, self.sharding, part)


def held(sharding: NamedSharding, batch: int, devices: Iterable[jax.Device]) -> np.ndarray:
  """The numbers of a batch's rows that lie on any of the devices, sorted."""
  places = sharding.devices_indices_map((batch,))
  return np.unique(np.concatenate([_span(places[device], (batch,)) for device in devices]))


def _span(index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
  return np.arange(*index[0].indices(shape[0]))


class Mine:
  """The rows of all batches that belong to this process, one after another, for Grain to read at random."""

  def __init__(self, visits: Order, batch: int, rows: np.ndarray):
    self.visits, self.batch, self.rows = visits, batch, rows.tolist()

  def __len__(self) -> int:
    return STEPS * len(self.rows)

  def __getitem__(self, index: int) -> Row:
    step, place = divmod(index, len(self.rows))
    return self.visits[step * self.batch + self.rows[place]]


class Batches:
  """A `train.types.Source`: the batches of a run in their order, and its position in it.

  `rows` are those of each batch that this process makes and `place` takes them to the devices; without the two, batches
  are whole and stay in numpy. `stages` are applied to each row.
  Raises: DataError if the documents do not fill a single batch.
  """

  def __init__(self, visits: Order, batch: int, *, rows: np.ndarray | None = None,
               place: Callable[[Row], Batch] | None = None, stages: Iterable[RowStage] = ()):
    if visits.rows < batch:
      raise DataError('data.too-small', f'{visits.rows} rows of {visits.length} tokens', f'a batch takes {batch} rows',
                      'use a smaller batch or shorter rows, or add text')
    self.visits, self.place, self.stages = visits, place, tuple(stages)
    self.mine = Mine(visits, batch, np.arange(batch) if rows is None else rows)
    self.definition = visits.definition | {'batch': batch, 'stages': [stage.definition for stage in self.stages]}
    self.step = 0
    self._iterator: Any = None

  def __call__(self, state: State | None = None) -> Batch:
    """The next batch: tokens and segments i32[B, L + 1], record i32[B], and what the stages add."""
    if self._iterator is None:
      self._iterator = self._start()
    batch = next(self._iterator)
    self.step += 1
    return batch

  def save(self) -> Position:
    """The number of batches given, and of what pipeline."""
    return {'step': self.step, 'fingerprint': fingerprint(self.definition), 'definition': self.definition}

  def load(self, position: Position) -> None:
    """Goes to where `save` was called, in this pipeline or an equal one.

    Raises: CheckpointError that says what differs if the position is one of another pipeline.
    """
    if position.get('fingerprint') != fingerprint(self.definition):
      then = position.get('definition')
      changed = differences(then, self.definition).items() if then else ()
      differing = '; '.join(f'{path} was {old}, is {new}' for path, (old, new) in changed)
      raise CheckpointError('data.other-pipeline', differing or 'a position that no pipeline wrote',
                            'the order of rows would not go on where it stopped',
                            'resume with the data settings of the checkpoint, or start a new run')
    self.close()
    self.step = int(position['step'])

  def close(self) -> None:
    """Drops the batches that were made ahead."""
    if self._iterator is not None:
      self._iterator.close()
    self._iterator = None

  def describe(self, record: int) -> str:
    """Where a row of a batch comes from, by its `record`."""
    return self.visits.describe(record)

  def _start(self) -> Any:
    import grain  # half a second: only those who train wait for it

    data = grain.MapDataset.source(self.mine)
    for stage in self.stages:
      data = data.map(stage)
    data = data.batch(len(self.mine.rows))
    data = data if self.place is None else data.map(self.place)
    # One thread: the rows are in memory, and Grain's sixteen would take turns on the interpreter's lock.
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(data.slice(slice(self.step, None)).to_iter_dataset(ahead))


def fingerprint(definition: dict[str, Any]) -> str:
  """sha256 of all that decides which tokens come when."""
  return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()
