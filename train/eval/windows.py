"""Documents cut into windows for a model that reads a limited number of tokens, so that each token is scored once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.errors import ConfigError

Row = dict[str, np.ndarray]


@dataclass(frozen=True)
class Windows:
  """Documents cut for a model that reads `length` tokens at once.

  A document's first window scores all its targets; each further one moves on by `stride` and scores only the targets
  that none before it did: every token is scored once, with at least `length - stride` tokens before it where there are
  any. Windows are laid into rows one after another, as segments, while they fit.
  """

  length: int
  stride: int

  def __post_init__(self):
    if not 1 <= self.stride <= self.length:
      raise ConfigError('config.out-of-range', f'stride = {self.stride}',
                        'windows that move on by more than their length leave tokens out', f'give 1 to {self.length}')

  def rows(self, documents: Sequence[np.ndarray]) -> Iterator[Row]:
    """Rows of `length + 1`: tokens, segments (0: padding), mask f32 (1: scored), document (its index; -1: padding)."""
    row, used = self._empty(), 0
    for index, ids in enumerate(documents):
      for begin, end, scored in self._cuts(len(ids)):
        if used + end - begin > self.length + 1:
          yield row
          row, used = self._empty(), 0
        place = slice(used, used + end - begin)
        row['tokens'][place] = ids[begin:end]
        row['segments'][place] = row['segments'].max() + 1
        row['mask'][used + scored - begin:place.stop] = 1.0
        row['document'][place] = index
        used = place.stop
    if used:
      yield row

  def _cuts(self, size: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, first scored target) of each window of a document of `size` tokens."""
    begin, scored = 0, 1
    while scored < size:
      end = min(begin + self.length + 1, size)
      yield begin, end, scored
      begin, scored = begin + self.stride, end

  def _empty(self) -> Row:
    zeros = np.zeros(self.length + 1, np.int32)
    return {'tokens': zeros.copy(), 'segments': zeros.copy(), 'mask': zeros.astype(np.float32), 'document': zeros - 1}


def batches(rows: Iterable[Row], size: int) -> Iterator[Row]:
  """Batches of exactly `size` rows, so that one program serves them all; the last is filled with rows of padding."""
  held: list[Row] = []
  for row in rows:
    held.append(row)
    if len(held) == size:
      yield {name: np.stack([each[name] for each in held]) for name in row}
      held = []
  if held:
    nothing = {name: np.full_like(value, -1 if name == 'document' else 0) for name, value in held[0].items()}
    held += [nothing] * (size - len(held))
    yield {name: np.stack([each[name] for each in held]) for name in nothing}
