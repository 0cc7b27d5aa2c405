"""A tokenizer as an artifact: trained on the training documents of a corpus, with a report of how it does on all of them."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import ConfigError, DataError
from model.tokenizer import SentencePiece, Tokenizer, train_bpe
from train.artifact import Artifact, Store, write_json
from train.data.corpus import Corpus
from train.data.document import SPLITS, Document, Split
from train.data.encoding import Opening
from train.data.shuffle import key

MODEL, REPORT = 'tokenizer.model', 'report.json'


@dataclass(frozen=True, kw_only=True)
class AnyVocabulary(Artifact):
  """A tokenizer of `size` ids, learnt here or published."""

  size: int

  @abstractmethod
  def opening(self, store: Store) -> Opening:
    """How the tokenizer is opened, once this is made. Raises: DataError if it is not."""

  def load(self, store: Store) -> Tokenizer:
    """The tokenizer. Raises: DataError if it is not made, or not as it was made."""
    return self.opening(store)()


@dataclass(frozen=True, kw_only=True)
class Vocabulary(AnyVocabulary):
  """A byte-pair vocabulary of `size` pieces, from a `share` of the documents: for a large corpus 0.01 is plenty."""

  corpus: Corpus
  size: int = 8192
  coverage: float = 0.9995               # share of the text whose characters have pieces of their own; the rest is bytes
  share: float = 1.0

  def __post_init__(self):
    for name in ('coverage', 'share'):
      if not 0 < getattr(self, name) <= 1:
        raise ConfigError('config.out-of-range', f'vocabulary.{name} = {getattr(self, name)}', 'it is a share',
                          'use more than 0 and at most 1')

  def make(self, folder: Path, store: Store) -> None:
    """Writes tokenizer.model and report.json.

    Raises: DataError if there is no training text, or if a document does not survive encoding.
    """
    data = train_bpe((document.text for document in self._documents(store, 'train')), self.size, self.coverage)
    (folder / MODEL).write_bytes(data)
    tokenizer = SentencePiece(folder / MODEL, hashlib.sha256(data).hexdigest())
    usage = Usage(tokenizer)
    for split in SPLITS:
      for document in self._documents(store, split):
        usage.add(document, split)
    write_json(folder / REPORT, usage.report() | {'share': self.share})
    if usage.failures:
      raise DataError('tokenizer.not-lossless', f'{len(usage.failures)} documents, first {usage.failures[0]}',
                      'they do not come back from encoding as they were', 'report it: this must not happen')

  def opening(self, store: Store) -> Opening:
    folder = store.find(self)
    return Opening(SentencePiece, (folder / MODEL, json.loads((folder / REPORT).read_text())['sha256']))

  def _documents(self, store: Store, split: Split) -> Iterator[Document]:
    for document in self.corpus.documents(store.find(self.corpus), split):
      if key('vocabulary', document.source, document.id) < self.share * 2**64:
        yield document


@dataclass
class Sum:
  """What some documents come to."""

  documents: int = 0
  bytes: int = 0
  tokens: int = 0

  def add(self, text: str, tokens: int) -> None:
    self.documents += 1
    self.bytes += len(text.encode())
    self.tokens += tokens

  def report(self) -> dict[str, Any]:
    return {'documents': self.documents, 'bytes': self.bytes, 'tokens': self.tokens,
            'bytes_per_token': round(self.bytes / self.tokens, 4) if self.tokens else None}


@dataclass
class Usage:
  """How a vocabulary does on documents: how short it makes them, which pieces it needs, whether they come back."""

  tokenizer: SentencePiece
  splits: dict[str, Sum] = field(default_factory=lambda: {split: Sum() for split in SPLITS})
  sources: dict[str, dict[str, Sum]] = field(default_factory=dict)
  failures: list[str] = field(default_factory=list)

  def __post_init__(self):
    self.counts = np.zeros(self.tokenizer.size, np.int64)

  def add(self, document: Document, split: Split) -> None:
    ids = self.tokenizer.encode(document.text)
    self.counts += np.bincount(ids, minlength=len(self.counts))
    source = self.sources.setdefault(document.source, {split: Sum() for split in SPLITS})
    for part in (self.splits[split], source[split]):
      part.add(document.text, len(ids))
    if self.tokenizer.decode(ids) != document.text:
      self.failures.append(f'{document.source}:{document.id}')

  def report(self) -> dict[str, Any]:
    """What report.json says; pieces are shown with their spaces."""
    tokenizer, sources = self.tokenizer, self.sources.items()
    texts = {i: each.decode() for i, each in enumerate(tokenizer.table) if each and not tokenizer.is_byte[i]}
    unused = [text for i, text in texts.items() if not self.counts[i]]
    used = sorted((i for i in texts if self.counts[i]), key=lambda i: (-len(texts[i]), -self.counts[i], i))
    return {
      'size': tokenizer.size,
      'sha256': tokenizer.fingerprint,
      'splits': {split: part.report() for split, part in self.splits.items()},
      'sources': {source: {split: part.report() for split, part in parts.items()} for source, parts in sources},
      'failures': self.failures,
      'byte_share': round(float(self.counts[tokenizer.is_byte].sum() / max(self.counts.sum(), 1)), 6),
      'unused': {'count': len(unused), 'pieces': unused[:100]},
      'longest': [{'piece': texts[i], 'count': int(self.counts[i])} for i in used[:30]],
    }
