"""Where words begin and end, read off what the ids of a vocabulary stand for.

A blank before a word belongs to its first piece: SentencePiece writes it as U+2581, GPT-2 as U+0120, and WordPiece marks the
pieces that have none by two hashes. What follows a line break, or a piece that brings the blank after it, begins a word too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Edges(NamedTuple):
  """Of each id whether a word begins with it, and whether one ends with it, so that another begins with what follows."""

  begins_V: np.ndarray                   # bool[V]
  ends_V: np.ndarray                     # bool[V]


def edges_of(table: Sequence[bytes]) -> Edges:
  """Those of ids that stand for these bytes. Blanks alone end no word: they are the beginning of one."""
  begins = [each[:1].isspace() for each in table]
  ends = [each[-1:].isspace() and bool(each.strip(b' ')) for each in table]
  return Edges(np.array(begins, bool), np.array(ends, bool))
