"""Which rows a batch has: prompts that are alike are read as one, and rows that have ended leave.

A batch shrinks to the next power of two when half of its rows or more have ended, so that a finished row costs little. There
are few sizes, and a program for each; what a row writes is its own whatever batch it stands in.

Letters: B prompts, U of them that differ, C rows of a batch, T positions of the answers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FEWEST = 4                            # rows that are not worth a program for less of them: a step's weights cost the same
GOING = 0                             # of the reasons for which a row ends: none yet


class Told(NamedTuple):
  """What the rows of a batch wrote so far."""

  tokens_CT: np.ndarray               # i32
  logps_CT: np.ndarray                # f32
  counts_C: np.ndarray                # i32
  reason_C: np.ndarray                # i32


def alike(prompts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
  """Where each prompt stands first, and which of these each row has: i32[U] and i32[B].

  U is a power of two, the last prompt standing for the missing ones, so that a few programs serve any number; where that
  saves nothing each row reads its own.
  """
  first: dict[tuple[int, ...], int] = {}
  which = [first.setdefault(tuple(prompt), len(first)) for prompt in prompts]
  places = {unique: place for place, unique in reversed(list(enumerate(which)))}
  count = 1 << (len(first) - 1).bit_length()
  if count >= len(prompts):
    return np.arange(len(prompts), dtype=np.int32), np.arange(len(prompts), dtype=np.int32)
  return np.array([places[min(u, len(first) - 1)] for u in range(count)], np.int32), np.array(which, np.int32)


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
  """Where the rows of the batch come from, and what was last told of each answer."""

  place_C: np.ndarray                 # the answer that each row writes
  told: Told | None = None            # of all answers

  @classmethod
  def begin(cls, count: int) -> 'Answers':
    return cls(np.arange(count))

  def note(self, told: Told) -> None:
    """Takes over what the batch wrote: of all answers at first, then of those that are in it."""
    if self.told is None:
      self.told = Told(*(np.array(x) for x in told))
    for whole, part in zip(self.told, told):
      whole[self.place_C] = part

  def keep(self, staying_C: np.ndarray) -> None:
    """The batch has become these of its rows."""
    self.place_C = self.place_C[staying_C]
