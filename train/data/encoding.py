"""What a worker process does to documents on their way to tokens. It imports little, as every worker imports it."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from model.tokenizer import SentencePiece
from train.data.document import Document
from train.data.fim import Fim


class Encoded(NamedTuple):
  """A document, or a part of one, as token ids from bos to eos, i64[tokens]; mask u8[tokens], if not all are to be learnt."""

  source: str
  id: str
  ids: np.ndarray
  mask: np.ndarray | None = None


@dataclass(frozen=True)
class Encode:
  """Documents in the ids of a model file, with gaps if wished."""

  model: Path
  fim: Fim | None

  def __call__(self, documents: list[Document]) -> list[Encoded]:
    tokenizer = _open(self.model)
    return [Encoded(document.source, document.id, np.array([tokenizer.bos, *ids, tokenizer.eos]))
            for document in documents for ids in self._parts(document, tokenizer)]

  def _parts(self, document: Document, tokenizer: SentencePiece) -> Iterable[list[int]]:
    return self.fim(document.text, document.id, tokenizer) if self.fim else [tokenizer.encode(document.text)]


@functools.cache
def _open(model: Path) -> SentencePiece:
  return SentencePiece(model)
