"""A document: a text, where it came from, and whether it is held out of training."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal

Split = Literal['train', 'heldout']
SPLITS: tuple[Split, ...] = ('train', 'heldout')


@dataclass(frozen=True)
class Document:
  """One text and its origin. `id` is unique in a corpus; `source` is what mixtures weigh by."""

  text: str
  source: str
  id: str
  meta: dict[str, str] = field(default_factory=dict)


def size(text: str) -> int:
  """Bytes of the text in UTF-8."""
  return len(text) if text.isascii() else len(text.encode())


def held_out(text: str, modulo: int) -> bool:
  """Whether a text is kept from training: sha256 of its UTF-8 is a multiple of `modulo`.

  A function of the text alone, so a document stays on its side whatever else joins or leaves the corpus.
  """
  return int(hashlib.sha256(text.encode()).hexdigest(), 16) % modulo == 0


def set_apart(document: Document, modulo: int, by: str | None = None) -> bool:
  """Whether a document is kept from training: by its text, or by what its `meta` says under `by`, where it says that."""
  return held_out(document.text if by is None else document.meta.get(by, document.text), modulo)


def to_line(document: Document) -> str:
  """The document as one line of JSON, with its newline. `from_line` is the way back."""
  fields = {'text': document.text, 'source': document.source, 'id': document.id, 'meta': document.meta}
  return json.dumps(fields, ensure_ascii=False, separators=(',', ':')) + '\n'


def from_line(line: str | bytes) -> Document:
  """The document that `to_line` wrote."""
  return Document(**json.loads(line))
