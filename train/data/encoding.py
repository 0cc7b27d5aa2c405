"""Documents to token ids, as a worker process does it. It imports little, because every worker imports it."""

import functools
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model.tokenizer import Tokenizer
from train.data.document import Document
from train.data.fim import Fim


class Encoded(NamedTuple):
  """A document, or a part of one, as token ids from bos to eos, i64[tokens]; mask u8[tokens], if not all are to be learnt."""

  source: str
  id: str
  ids: np.ndarray
  mask: np.ndarray | None = None


class Opening(NamedTuple):
  """How to open a tokenizer: a value that can be sent to another process, and is equal there."""

  kind: Callable[..., Tokenizer]
  arguments: tuple[Hashable, ...]

  def __call__(self) -> Tokenizer:
    return self.kind(*self.arguments)


@dataclass(frozen=True)
class Encode:
  """A function from documents to token ids; with `fim`, rearranged for fill-in-the-middle."""

  opening: Opening
  fim: Fim | None

  def __call__(self, documents: list[Document]) -> list[Encoded]:
    tokenizer = _open(self.opening)
    return [Encoded(document.source, document.id, np.array([tokenizer.bos, *ids, tokenizer.eos]))
            for document in documents for ids in self._parts(document, tokenizer)]

  def _parts(self, document: Document, tokenizer: Tokenizer) -> Iterable[list[int]]:
    return self.fim(document.text, document.id, tokenizer) if self.fim else [tokenizer.encode(document.text)]


@functools.cache
def _open(opening: Opening) -> Tokenizer:
  return opening()
