"""Held-out documents in rows that score every token once."""

from collections.abc import Iterable, Iterator

import numpy as np

from model.errors import ConfigError, DataError
from train.data.pack import cut
from train.data.token_files import TokenSplit
from train.data.visits import Row, RowStage


class Windows:
  """Documents end to end, in their order, seen through windows of `length + 1` tokens that move on by `stride`.

  The first window scores all of its targets, each further one its last `stride`: a token is scored once, with at least
  `length - stride` tokens before it, or as many as its document has. The first token of a document is never scored.
  """

  def __init__(self, tokens: TokenSplit, source: str | None, length: int, stride: int):
    if not 1 <= stride <= length:
      raise ConfigError('config.out-of-range', f'stride = {stride}', f'windows are {length} tokens long',
                        f'use 1 to {length}')
    self.tokens, self.length, self.stride = tokens, length, stride
    self.documents = tokens.documents(source)
    self.starts = tokens.offsets[self.documents]
    self.lengths = tokens.offsets[self.documents + 1] - self.starts
    self.order, self.ends = np.arange(len(self.lengths)), np.cumsum(self.lengths)

  def __len__(self) -> int:
    targets = int(self.lengths.sum()) - 1
    return 1 + max(0, -(-(targets - self.length) // self.stride)) if targets > 0 else 0

  def __getitem__(self, index: int) -> Row:
    """tokens, segments i32[length + 1], and mask f32[length + 1], 1 where a token is scored."""
    begin = index * self.stride
    spans = cut(self.order, self.ends, self.lengths, begin, begin + self.length + 1)
    row = self.tokens.row(spans, self.starts, self.length)
    segments = row['segments']
    mask = np.zeros(self.length + 1, bool)
    mask[1:] = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
    if index:
      mask[:self.length + 1 - self.stride] = False
    mask &= row.get('mask', mask) > 0
    return row | {'mask': mask.astype(np.float32)}


class Heldout:
  """The rows of all windows, or `rows` of them, evenly spread: the same ones at every call.

  Raises: DataError if there is nothing to score.
  """

  def __init__(self, windows: list[Windows], rows: int | None = None, stages: Iterable[RowStage] = ()):
    places = [(each, index) for each in windows for index in range(len(each))]
    if not places:
      raise DataError('data.no-heldout', f'held-out tokens in {windows[0].tokens.folder}', 'no document is held out',
                      'use a corpus with more documents, or a smaller heldout_modulo')
    count = len(places) if rows is None else min(rows, len(places))
    self.places = [places[i * len(places) // count] for i in range(count)]
    self.stages = tuple(stages)

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, index: int) -> Row:
    windows, place = self.places[index]
    row = windows[place] | {'record': np.asarray(index, np.int32)}
    for stage in self.stages:
      row = stage(row)
    return row

  def batches(self, batch: int) -> Iterator[Row]:
    """Batches of exactly so many rows; the last is filled up with rows of nothing (segments and mask 0)."""
    for begin in range(0, len(self), batch):
      rows = [self[index] for index in range(begin, min(begin + batch, len(self)))]
      rows += [{name: np.zeros_like(value) for name, value in rows[0].items()}] * (batch - len(rows))
      yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}
