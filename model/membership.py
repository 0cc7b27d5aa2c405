"""Which rows a decoding batch has (continuous batching): equal prompts are read once, rows that have ended make room for
prompts that wait, and leave when none does.

What a row writes is its own whatever batch it stands in, so all this is a matter of cost. There are few sizes, and a program
for each. While prompts wait, a batch is filled up when a quarter of its rows have ended, a quarter at a time: to stop and to
read costs about two steps, and a free row costs its share of every step. With C rows that write A ids on the average, and R
read at a time, a step loses 2 C^2 / A R rows to stops and R / 2 to waiting: least at R = 2 C / sqrt(A), a quarter at 64 ids.
When no prompt waits, a batch shrinks to the next power of two when half of its rows or more have ended.

Letters: B prompts, U of them that differ, C rows of a batch, R rows that are read at a time, T positions of the answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model.errors import demand

FEWEST = 4                            # rows that are not worth a program for less of them: a step's weights cost the same
GOING = 0                             # of the reasons for which a row ends: none yet


class Told(NamedTuple):
  """What the rows of a batch wrote so far."""

  tokens_CT: np.ndarray               # i32, with the prompts before or without
  logps_CT: np.ndarray                # f32
  counts_C: np.ndarray                # i32
  reason_C: np.ndarray                # i32
  filled_C: np.ndarray                # i32: of the cache's slots
  passes_C: np.ndarray                # i32: of the model

  @property
  def going_C(self) -> np.ndarray:
    return self.reason_C == GOING


def alike(prompts: Sequence[Sequence[int]], rows: int) -> tuple[np.ndarray, np.ndarray]:
  """Where each prompt stands first, and which of these each of the rows has: i32[U] and i32[rows], -1 beyond the last prompt.

  U is a power of two, the last prompt standing for the missing ones, so that a few programs serve any number; where that
  saves nothing each row reads its own.
  """
  first: dict[tuple[int, ...], int] = {}
  for place, prompt in enumerate(prompts):
    first.setdefault(tuple(prompt), place)
  unique, places = {prompt: u for u, prompt in enumerate(first)}, list(first.values())
  which, count = [unique[tuple(prompt)] for prompt in prompts], 1 << (len(first) - 1).bit_length()
  if count >= len(prompts):
    places, which, count = list(range(len(prompts))), list(range(len(prompts))), rows
  return (np.array(places + places[-1:] * (count - len(places)), np.int32),
          np.array(which + [-1] * (rows - len(prompts)), np.int32))


def lot(rows: int) -> int:
  """How many prompts are read at a time into a batch of so many rows."""
  return max(1, rows // 4)


def enough(rows: int) -> int:
  """A batch of so many rows shrinks when no more than these go on."""
  return rows // 2 if rows > FEWEST else 0


def staying(going_C: np.ndarray) -> np.ndarray:
  """The rows of the next batch, i32: those that go on, in order, and ended ones up to a power of two; or all of them."""
  going, ended = np.flatnonzero(going_C), np.flatnonzero(~going_C)
  if len(going) > enough(len(going_C)):
    return np.arange(len(going_C), dtype=np.int32)
  size = max(FEWEST, 1 << (len(going) - 1).bit_length())
  return np.concatenate([going, ended[:size - len(going)]]).astype(np.int32)


@dataclass
class Answers:
  """Who writes which answer, and what was last told of each."""

  count: int                          # of all answers
  place_C: np.ndarray                 # i32: the answer that each row of the batch writes, -1 for none
  begun: int                          # so many answers have a row, or had one
  told: Told | None = None            # of all answers

  @classmethod
  def begin(cls, count: int, at_once: int | None) -> 'Answers':
    """A batch of all answers; or of so many at once, and where there are fewer of as many lots as hold them: few sizes.

    Raises: ConfigError if none would be written at a time.
    """
    demand(at_once is None or at_once > 0, 'at_once', at_once, 'so many answers are written at a time', 'give at least 1')
    rows = count if at_once is None else min(at_once, -(-count // lot(at_once)) * lot(at_once))
    numbers = np.arange(rows, dtype=np.int32)
    return cls(count, np.where(numbers < count, numbers, -1), min(rows, count))

  @property
  def waiting(self) -> bool:
    return self.begun < self.count

  @property
  def few(self) -> int:
    """The batch stops when no more rows than these go on."""
    rows = len(self.place_C)
    return rows - lot(rows) if self.waiting else enough(rows)

  def note(self, told: Told) -> None:
    """Takes over what the batch wrote."""
    if self.told is None:
      self.told = Told(*(np.zeros((self.count, *part.shape[1:]), part.dtype) for part in told))
    for whole, part in zip(self.told, told):
      whole[self.place_C[self.place_C >= 0]] = part[self.place_C >= 0]

  def free(self, going_C: np.ndarray) -> np.ndarray:
    """The rows that the next prompts can take, i32[R]; none while too few have ended, or where no prompt waits."""
    free, size = np.flatnonzero(~going_C), lot(len(going_C))
    return free[:size if self.waiting and len(free) >= size else 0].astype(np.int32)

  def give(self, rows_R: np.ndarray) -> np.ndarray:
    """The answers that these rows write from now on, i32[R], -1 for none."""
    numbers = np.arange(self.begun, self.begun + len(rows_R), dtype=np.int32)
    self.place_C[rows_R] = numbers = np.where(numbers < self.count, numbers, -1)
    self.begun = min(self.begun + len(rows_R), self.count)
    return numbers

  def keep(self, staying_C: np.ndarray) -> None:
    """The batch has become these of its rows."""
    self.place_C = self.place_C[staying_C]
