"""A corpus as token ids, ready to be packed into rows: each document is `bos ids eos`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from model.errors import ConfigError, DataError
from model.tokenizer import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer
from train.artifact import Artifact, Store, how, write_json
from train.data.corpus import Corpus
from train.data.document import SPLITS, Split
from train.data.encoding import Encode, Encoded
from train.data.fim import Fim
from train.data.prepare import CHUNK_BYTES, CHUNK_DOCUMENTS, chunks
from train.data.token_files import BYTES_OF, MANIFEST, TokenSplit, open_split, write_split
from train.data.vocabulary import AnyVocabulary
from train.data.workers import in_order, processes


@dataclass(frozen=True, kw_only=True)
class TokenFiles(Artifact):
  """Documents in the ids of a vocabulary, in the files that `train.data.token_files` describes."""

  corpus: Corpus
  vocabulary: AnyVocabulary

  def write(self, folder: Path, tokenizer: Tokenizer, encoded: Callable[[Split], Iterable[Encoded]]) -> None:
    """Writes the files of both splits. Raises: DataError if there is no training document."""
    np.save(folder / BYTES_OF, tokenizer.bytes_of)
    sources: list[str] = []
    splits = {split: write_split(folder, split, encoded(split), tokenizer.bytes_of, sources) for split in SPLITS}
    if not splits['train']['documents']:
      raise DataError('data.empty', f'corpus {self.corpus.name}', 'it holds no training document',
                      'read its table.json for what was dropped and why, and loosen a filter or add a source')
    write_json(folder / MANIFEST, {'tokenizer': tokenizer.fingerprint, 'size': tokenizer.size, 'sources': sources,
                                   'controls': tokenizer.controls, 'splits': splits})

  def open(self, store: Store, split: Split) -> TokenSplit:
    """The tokens of a split, verified."""
    return open_split(store.find(self), split)


@dataclass(frozen=True, kw_only=True)
class Tokens(TokenFiles):
  """The documents of a corpus in the ids of a vocabulary; with `fim`, training documents are rearranged for that."""

  fim: Fim | None = None
  workers: int = how(1)                  # processes, of about 9 MB of text a second each

  def __post_init__(self):
    if self.workers < 1:
      raise ConfigError('config.out-of-range', f'tokens.workers = {self.workers}', 'somebody has to do it',
                        'give at least 1')

  def make(self, folder: Path, store: Store) -> None:
    """Writes the files that `train.data.token_files` describes.

    Raises: DataError if there is no training document.
    """
    tokenizer = self.vocabulary.load(store)
    missing = {FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX} - tokenizer.controls.keys()
    if self.fim and missing:
      raise DataError('tokenizer.no-fim', f'{self.vocabulary.name}: it has no {min(missing)}',
                      'the parts of a rearranged text are told apart by control tokens', 'set fim to None')
    self.write(folder, tokenizer, lambda split: self._encoded(store, split))

  def _encoded(self, store: Store, split: Split) -> Iterator[Encoded]:
    encode = Encode(self.vocabulary.opening(store), self.fim if split == 'train' else None)
    documents = self.corpus.documents(store.find(self.corpus), split)
    chunked = chunks(documents, CHUNK_DOCUMENTS, CHUNK_BYTES)
    if self.workers == 1:
      yield from chain.from_iterable(map(encode, chunked))
      return
    with processes(self.workers) as pool:
      yield from chain.from_iterable(in_order(pool, encode, chunked, 2 * self.workers))
