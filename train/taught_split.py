"""Training tokens with what a teacher foretold after each of them, open.

Letters: T tokens, K ids, J outcomes, as in `train.stored_logits`.
"""

from dataclasses import dataclass, field

import numpy as np

from train.data.pack import Span
from train.data.token_files import TokenSplit
from train.data.visits import Row
from train.distil import IDS, LOGPS


@dataclass(frozen=True)
class TaughtSplit(TokenSplit):
  """Training tokens with what a teacher foretold after each of them."""

  teacher_ids: np.ndarray = field(kw_only=True)        # [T, K]
  teacher_logps: np.ndarray = field(kw_only=True)      # [T, J]
  mark: str = field(kw_only=True)

  @property
  def sha256(self) -> str:
    return self.mark

  def row(self, spans: list[Span], starts: np.ndarray, length: int) -> Row:
    """As tokens alone have it, and teacher_ids i32[length + 1, K], teacher_logps f32[length + 1, J]; 0 on padding."""
    columns = {IDS: laid(spans, self.teacher_ids, starts, length).astype(np.int32),
               LOGPS: laid(spans, self.teacher_logps, starts, length).astype(np.float32)}
    return super().row(spans, starts, length) | columns


def laid(spans: list[Span], values: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
  """What `values` [T, ...] has for each token of a row, [length + 1, ...], and 0 on padding."""
  row, used = np.zeros((length + 1, *values.shape[1:]), values.dtype), 0
  for document, start, stop in spans:
    begin, size = int(starts[document]) + start, stop - start
    row[used:used + size] = values[begin:begin + size]
    used += size
  return row
