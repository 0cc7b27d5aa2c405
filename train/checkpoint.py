"""Saves of a training that can be trusted: what `restore` gives is, to the bit, what some `save` was given.

    with Checkpoints(folder) as saves:
      state, host = saves.restore(abstract) or (new_state, None)
      ...
      saves.check()                               # each step: raises what went wrong in the background
      saves.save(step, state, {'source': source.save()})

A save stops the training only while the state is copied; the state may be donated to the next step at once. A thread does
the rest: it writes the arrays with Orbax, a digest of each, the host's values and the seal (`train.saving.integrity`), and
renames the folder to its step. `train.saving.shelf` describes the folder.
"""

import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from model.errors import StorageError, UserError
from train.files import read_json
from train.lives import writable
from train.saving import integrity, shelf, writing
from train.saving.host_copy import HostCopy
from train.saving.integrity import Damaged
from train.saving.leaves import bits, compare, describe, named
from train.saving.peers import agree, share
from train.saving.reading import brief, no_step, read
from train.saving.writing import Save
from train.types import State

log = logging.getLogger(__name__)

GO, BUSY, THERE = 0, 1, 2           # what to do with a save that is asked for
NOTHING = -1                        # in place of a step to restore


class Checkpoints:
  """The saves of one training in a folder that it has for itself (`train.lock`). The newest `keep` steps are kept.

  `reserve` bytes of the disk are left free. A save that fails in the background is tried again after each of the `pauses`
  (seconds), then `check` raises.
  """

  def __init__(self, folder: Path, keep: int = 2, reserve: int = 2**26, pauses: tuple[float, ...] = (1.0, 5.0)):
    self.folder, self.keep, self.reserve = Path(folder), keep, reserve
    self.first = jax.process_index() == 0
    self.pauses = pauses if jax.process_count() == 1 else ()      # processes would have to agree on another try
    self.copy = HostCopy()
    self.thread: threading.Thread | None = None
    self.since, self.saving = 0.0, -1
    self.failure: UserError | None = None
    writable(self.folder)

  def steps(self) -> list[int]:
    """The verified steps, oldest first. Contents of files are verified when one is restored."""
    return list(shelf.look(self.folder).seals)

  def save(self, step: int, state: State, host: Mapping[str, Any]) -> bool:
    """Begins to save the state and the host's JSON values as one step; False if the save before still goes on.

    A step that is saved already is not saved again.

    Raises: StorageError `checkpoint.save-failed` if an earlier save failed for good.
    """
    text = json.dumps(host, allow_nan=False)
    self.check()
    verdict = agree(BUSY if self.busy else THERE if self._there(step) else GO)
    if verdict == BUSY:
      log.warning('step %d is not saved: step %d is still being saved, after %.0f s. Save less often',
                  step, self.saving, time.monotonic() - self.since)
    if verdict == GO:
      self.wait()
      self._begin(step, named(state), text)
    return verdict != BUSY

  @property
  def busy(self) -> bool:
    """Whether a save is going on."""
    return self.thread is not None and self.thread.is_alive()

  def check(self) -> None:
    """Costs nothing. Raises: StorageError `checkpoint.save-failed` once a save has failed for good."""
    if self.failure is not None:
      failure, self.failure = self.failure, None
      raise failure

  def wait(self) -> None:
    """Returns when no save is going on. Raises as `check` does."""
    if self.thread is not None:
      self.thread.join()
    self.check()

  def restore(self, like: State) -> tuple[State, dict[str, Any]] | None:
    """The newest step that is whole, with the shardings of `like` (abstract or not), and its host's values.

    A damaged step is set aside, loudly, and the one before is taken. None if the folder never held a step.

    Raises: CheckpointError if it holds another state than `like`, or one of a newer format, or no step that is whole;
    StorageError if another save would not fit on the disk.
    """
    self.wait()
    if self.first:
      shelf.clean(shelf.look(self.folder))
      writing.room(self.folder, sum(leaf.size * leaf.dtype.itemsize for leaf in named(like).values()), self.reserve)
    damaged: dict[int, Damaged] = {}
    while (step := self._choose(like, damaged)) != NOTHING:
      try:
        path = self.folder / str(step)
        return read(path, integrity.read(path), like), read_json(path / shelf.HOST)
      except Damaged as damage:
        damaged[step] = damage
        if self.first:
          self._reject(step, damage)
    return None

  def close(self) -> None:
    """Waits for the last save. Raises as `check` does."""
    self.wait()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               trace: TracebackType | None) -> None:
    if error is None:
      self.close()
    elif self.thread is not None and jax.process_count() == 1:      # with peers, a save may wait for one that is gone
      self.thread.join()
      if self.failure is not None:
        log.error('%s', self.failure)

  def _begin(self, step: int, leaves: dict[str, jax.Array], host: str) -> None:
    self.saving, self.since = step, time.monotonic()
    save = Save(step, self.copy(bits(leaves)), {name: describe(leaf) for name, leaf in leaves.items()}, host)
    self.thread = threading.Thread(target=self._persist, args=(save,), name=f'save {step}', daemon=True)
    self.thread.start()

  def _persist(self, save: Save) -> None:
    """In the background: writes the step, tries again where that fails, and keeps the failure for `check`."""
    for pause in (*self.pauses, None):
      try:
        self._attempt(save)
        return self._retire()
      except Exception as error:
        writing.discard(self.folder, save.step)
        if pause is None:
          self.failure = self._failed(save.step, error)
        else:
          log.error('step %d could not be saved: %s. Trying again in %.0f s', save.step, brief(error), pause)
          time.sleep(pause)

  def _attempt(self, save: Save) -> None:
    if self.first:
      last = list(shelf.look(self.folder).seals.values())[-1:]
      writing.room(self.folder, last[0].bytes if last else save.bytes, self.reserve)
    writing.write(self.folder, save)

  def _retire(self) -> None:
    try:
      if self.first:
        shelf.retire(self.folder, self.keep)
    except OSError as error:
      log.error('an older step could not be deleted: %s', error)

  def _failed(self, step: int, error: Exception) -> StorageError:
    failure = StorageError('checkpoint.save-failed', f'step {step} in {self.folder}',
                           f'{len(self.pauses) + 1} tries failed, the last with: {brief(error)}',
                           'mend the disk or make room, then launch again: it goes on from the step before')
    failure.__cause__ = error
    return failure

  def _there(self, step: int) -> bool:
    try:
      return shelf.whole(self.folder / str(step)).step == step
    except Damaged:
      return False

  def _choose(self, like: State, damaged: dict[int, Damaged]) -> int:
    """The step to restore, on which all processes agree; the first process looks for it."""
    step, refusal = NOTHING, None
    if self.first:
      try:
        step = self._newest(like, damaged)
      except UserError as error:
        refusal = error
    share(refusal, self.folder)
    return agree(step)

  def _newest(self, like: State, damaged: dict[int, Damaged]) -> int:
    """The newest step with all its files, if it is a state like `like`; damaged steps are set aside, and go into `damaged`."""
    look = shelf.look(self.folder)
    for step, damage in look.damaged.items():
      self._reject(step, damage)
    damaged.update(look.damaged)
    look.damaged = damaged
    if look.seals:
      step = max(look.seals)
      compare({name: describe(leaf) for name, leaf in named(like).items()}, look.seals[step].leaves,
              str(self.folder / str(step)))
      return step
    if look.lost:
      raise no_step(self.folder, look)
    return NOTHING

  def _reject(self, step: int, damage: Damaged) -> None:
    aside = shelf.set_aside(self.folder / str(step))
    log.error('step %d is damaged and is not used; it is now %s. %s', step, aside, damage)
