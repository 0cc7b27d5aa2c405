"""Documents laid into rows of `length + 1` tokens: which piece of which document lies in row r of epoch e.

    Stream   documents in a new order each epoch, end to end, cut every `length` tokens: no padding but at the very end
    Whole    documents that fit into a row are never cut; rows are filled by best fit and are the same in every epoch

In both the first token of a row is only read, so each token after a document's first is a target exactly once an epoch.
Nothing is read or written here: a plan is made of lengths.
"""

import bisect
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from train.data.shuffle import key, permutation


class Span(NamedTuple):
  """Tokens start .. stop - 1 of a document."""

  document: int
  start: int
  stop: int


class Plan(Protocol):
  """Where everything lies: `rows` rows an epoch, and the spans of each."""

  rows: int

  def spans(self, epoch: int, row: int) -> list[Span]: ...


class Packing(Protocol):
  """How documents are laid into rows: a config that makes a plan from the documents' lengths i64[documents]."""

  def plan(self, lengths: np.ndarray, length: int, seed: int) -> Plan: ...


@dataclass(frozen=True)
class Stream:
  """Concatenate and split."""

  def plan(self, lengths: np.ndarray, length: int, seed: int) -> Plan:
    return StreamPlan(lengths, length, seed)


@dataclass(frozen=True)
class Whole:
  """Best fit, largest first. A document longer than a row is cut into rows, and its end is laid with the rest."""

  def plan(self, lengths: np.ndarray, length: int, seed: int) -> Plan:
    return WholePlan(lengths, length)


class StreamPlan:
  """Row r covers the tokens r * length .. (r + 1) * length of the epoch's stream; the last begins row r + 1."""

  def __init__(self, lengths: np.ndarray, length: int, seed: int):
    self.lengths, self.length, self.seed = lengths, length, seed
    self.rows = max(0, -(-(int(lengths.sum()) - 1) // length))
    self._epoch = lru_cache(maxsize=2)(self._shuffled)

  def _shuffled(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The documents in this epoch's order, and where in its stream each of them ends."""
    order = permutation(key(self.seed, 'documents', epoch), len(self.lengths))
    return order, np.cumsum(self.lengths[order])

  def spans(self, epoch: int, row: int) -> list[Span]:
    order, ends = self._epoch(epoch)
    return cut(order, ends, self.lengths, row * self.length, (row + 1) * self.length + 1)


def cut(order: np.ndarray, ends: np.ndarray, lengths: np.ndarray, begin: int, end: int) -> list[Span]:
  """The spans of tokens begin .. end - 1 of a stream: documents in that order, of which the k-th ends at ends[k]."""
  found, place, end = [], int(np.searchsorted(ends, begin, 'right')), min(end, int(ends[-1]))
  while begin < end:
    document, stop = int(order[place]), min(int(ends[place]), end)
    offset = int(ends[place] - lengths[document])
    found.append(Span(document, begin - offset, stop - offset))
    begin, place = stop, place + 1
  return found


class WholePlan:
  """Each row is a list of spans, made once; only the order in which rows are visited changes with the epoch."""

  def __init__(self, lengths: np.ndarray, length: int):
    self._rows = _best_fit(_pieces(lengths, length), length + 1)
    self.rows = len(self._rows)

  def spans(self, epoch: int, row: int) -> list[Span]:
    return self._rows[row]


def _pieces(lengths: np.ndarray, length: int) -> list[Span]:
  """Each document whole, or cut into rows that share one token, as a stream is."""
  return [Span(document, start, min(start + length + 1, size))
          for document, size in enumerate(lengths.tolist()) for start in range(0, max(size - 1, 1), length)]


def _best_fit(pieces: list[Span], capacity: int) -> list[list[Span]]:
  """Rows of at most `capacity` tokens: each piece, largest first, goes where it leaves the least room."""
  rows: list[list[Span]] = []
  with_room: dict[int, list[int]] = defaultdict(list)      # rows by the room that they have left
  rooms: list[int] = []                                    # the rooms that some row has, sorted
  for piece in sorted(pieces, key=lambda piece: piece.start - piece.stop):
    size = piece.stop - piece.start
    place = bisect.bisect_left(rooms, size)
    if place == len(rooms):
      room, row = capacity, len(rows)
      rows.append([])
    else:
      room, row = rooms[place], with_room[rooms[place]].pop()
      if not with_room[room]:
        rooms.pop(place)
    rows[row].append(piece)
    if left := room - size:
      if not with_room[left]:
        bisect.insort(rooms, left)
      with_room[left].append(row)
  return rows


def fill(spans: list[Span], ids: np.ndarray, starts: np.ndarray, length: int) -> dict[str, np.ndarray]:
  """A row: tokens i32[length + 1] and segments i32[length + 1], which count its spans from 1 and are 0 on padding.

  `ids` are all tokens, `starts` says where in them each document begins.
  """
  segments = np.zeros(length + 1, np.int32)
  numbers = np.repeat(np.arange(1, len(spans) + 1), [span.stop - span.start for span in spans])
  segments[:len(numbers)] = numbers
  return {'tokens': lay(spans, ids, starts, length).astype(np.int32), 'segments': segments}


def lay(spans: list[Span], values: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
  """What `values` [tokens, ...] has for each token of a row, [length + 1, ...], and 0 on padding."""
  laid, used = np.zeros((length + 1, *values.shape[1:]), values.dtype), 0
  for document, start, stop in spans:
    begin, end = int(starts[document]) + start, used + stop - start
    laid[used:end] = values[begin:begin + stop - start]
    used = end
  return laid
