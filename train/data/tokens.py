"""A corpus as token ids, ready to be laid into rows: each document is `bos ids eos`."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from model.errors import ConfigError, DataError, PeerError
from model.tokenizer import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer
from train.artifact import Artifact, Store, how, write_json
from train.data.corpus import Corpus
from train.data.document import SPLITS, Split
from train.data.encoding import Encode, Encoded
from train.data.fim import Fim
from train.data.prepare import CHUNK_BYTES, CHUNK_DOCUMENTS, chunks
from train.data.token_files import BYTES_OF, MANIFEST, TokenSplit, open_split, write_split
from train.data.vocabulary import AnyVocabulary
from train.data.workers import processes

In = TypeVar('In')
Out = TypeVar('Out')


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
  """The documents of a corpus in the ids of a vocabulary; the training ones, if wished, with gaps to fill."""

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
    for group in in_order(encode, chunks(documents, CHUNK_DOCUMENTS, CHUNK_BYTES), self.workers):
      yield from group


def in_order(function: Callable[[In], Out], items: Iterable[In], workers: int) -> Iterator[Out]:
  """`map` over several processes: the same results in the same order, and only a few items in memory.

  Raises: PeerError if a worker is killed.
  """
  if workers == 1:
    yield from map(function, items)
    return
  with processes(workers) as pool:
    waiting: deque[Future[Out]] = deque()
    try:
      for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > 2 * workers:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    except BrokenProcessPool:
      raise PeerError('data.worker-gone', f'one of {workers} processes that encode documents',
                      'it was killed, perhaps because memory ran out', 'launch again, with fewer workers') from None
