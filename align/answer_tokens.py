"""Token files of answers, and a column of what was judged beside them: what `PairTokens` and `LabelTokens` have in common.

The folder of `AnswerTokens` has, for each split, the files that `train.data.token_files` describes, a document for each
answer with its prompt, and beside them

    train.<column>.npy   a row for each judgement, of one answer or of two        <noun>s.json   a sha256 of it for each split
    table.json           what was read, left out and cut
"""

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import rich

from model.chat import ChatML, Rendered, Template, check_controls
from model.errors import ConfigError, DataError
from model.tokenizer import Tokenizer
from train.artifact import Artifact, Store, write_json
from train.data.columns import read_column, write_column
from train.data.corpus import TABLE, Corpus
from train.data.document import SPLITS, Split
from train.data.encoding import Encoded
from train.data.token_files import BYTES_OF, MANIFEST, TokenSplit, open_split, write_split
from train.data.visits import Row
from train.data.vocabulary import AnyVocabulary


class Derivation(Protocol):
  """How a corpus becomes (id, pair) or (id, label). `stages` are the kinds that a corpus of such documents may go through."""

  @property
  def stages(self) -> tuple[type, ...]: ...

  def __call__(self, corpus: Corpus, folder: Path, split: Split, counts: Counter[str], /) -> Iterator[tuple[str, Any]]: ...


class Judgement(NamedTuple):
  """One pair or label in tokens."""

  found: Any                         # its row of the column
  answers: Sequence[Rendered]


class JudgedSplit(NamedTuple):
  """A split, opened and verified."""

  tokens: TokenSplit
  found: np.ndarray
  sha256: str                        # of all that is in it


@dataclass(frozen=True, kw_only=True)
class AnswerTokens(Artifact):
  """What `derivation` makes of a corpus, rendered by a template; no prompt with its answer has more than `longest` tokens."""

  corpus: Corpus
  vocabulary: AnyVocabulary
  template: Template = ChatML()
  longest: int = 512

  noun: ClassVar[str]
  column: ClassVar[str]
  kind: ClassVar[type]               # of the column's numbers
  sides: ClassVar[int]               # answers of a judgement

  @property
  @abstractmethod
  def derivation(self) -> Derivation:
    """How the corpus becomes pairs or labels."""

  @abstractmethod
  def judgement(self, tokenizer: Tokenizer, id: str, judged: Any, counts: Counter[str]) -> Judgement | None:
    """A pair or label in tokens, or None if it is left out; what was cut or left out is added to `counts`.

    Raises: DataError for messages that the template refuses.
    """

  def __post_init__(self):
    if self.longest < 2:
      raise ConfigError('config.out-of-range', f'longest = {self.longest}', 'it counts tokens', 'use 2 or more')
    kinds = self.derivation.stages
    if odd := [stage.name for stage in (*self.corpus.stages, *self.corpus.augment) if not isinstance(stage, kinds)]:
      raise ConfigError(f'{self.noun}.stages', f'corpus {self.corpus.name!r}: {", ".join(odd)}',
                        'its documents are JSON, which these stages would take for prose',
                        f'use {", ".join(kind.__name__ for kind in kinds)} or none: stages=()')

  def make(self, folder: Path, store: Store) -> None:
    """Writes the files. Raises: DataError as `judgement` does, or if nothing is left to train on."""
    tokenizer = self.vocabulary.load(store)
    check_controls(self.template, tokenizer)
    np.save(folder / BYTES_OF, tokenizer.bytes_of)
    counts: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    sources: list[str] = []
    splits, hashes = {}, {}
    for split in SPLITS:
      found: list[Any] = []
      answers = self._answers(store, split, tokenizer, found, counts[split])
      splits[split] = write_split(folder, split, answers, tokenizer.bytes_of, sources)
      hashes[split] = write_column(folder, split, self.column, np.array(found, self.kind))
    write_json(folder / TABLE, counts)
    rich.print(f'{self.noun}s {self.name}', *(f'  {split}: {what}: {count:,}' for split in SPLITS
                                              for what, count in counts[split].items() if count), sep='\n')
    if not splits['train']['documents']:
      raise DataError(f'{self.noun}.none', f'{self.noun}s {self.name}', f'none is left to train on: {dict(counts["train"])}',
                      'ask less of them or allow for more tokens, or add data')
    write_json(folder / MANIFEST, {'tokenizer': tokenizer.fingerprint, 'size': tokenizer.size, 'sources': sources,
                                   'controls': tokenizer.controls, 'splits': splits})
    write_json(folder / self._hashes, hashes)

  def judged(self, store: Store, split: Split) -> JudgedSplit:
    """The files of a split. Raises: DataError if they are not as they were written."""
    folder = store.find(self)
    tokens = open_split(folder, split)
    found, wanted = read_column(folder, split, self.column, self._hashes, (len(tokens.offsets) - 1) // self.sides)
    return JudgedSplit(tokens, found, hashlib.sha256(f'{tokens.sha256}{wanted}'.encode()).hexdigest())

  @property
  def _hashes(self) -> str:
    return f'{self.noun}s.json'

  def _answers(self, store: Store, split: Split, tokenizer: Tokenizer, found: list[Any],
               counts: Counter[str]) -> Iterator[Encoded]:
    """The answers of every judgement, in order; its row of the column is appended to `found`."""
    for id, judged in self.derivation(self.corpus, store.find(self.corpus), split, counts):
      if (judgement := self.judgement(tokenizer, id, judged, counts)) is not None:
        found.append(judgement.found)
        yield from (Encoded(self.corpus.name, id, answer.ids, answer.mask) for answer in judgement.answers)


def answer_of(tokens: TokenSplit, document: int) -> Rendered:
  """The ids and the mask of a document, 1 on its answer."""
  begin, end = tokens.offsets[document:document + 2]
  assert tokens.mask is not None, 'answers are written with a mask'
  return Rendered(tokens.ids[begin:end], tokens.mask[begin:end])


def side_by_side(answers: Sequence[Rendered], length: int) -> Row:
  """tokens and segments i32[S, length], mask f32[S, length] of S answers."""
  tokens, segments, mask = (np.zeros((len(answers), length), kind) for kind in (np.int32, np.int32, np.float32))
  for side, (ids, answered) in enumerate(answers):
    tokens[side, :len(ids)], segments[side, :len(ids)], mask[side, :len(ids)] = ids, 1, answered
  return {'tokens': tokens, 'segments': segments, 'mask': mask}
