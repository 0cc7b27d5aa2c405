"""Labels as tokens on disk, and beside each answer the one of another label, after the prompt to which it is no answer.

The folder of a `LabelTokens` has, for each split, the files that `train.data.token_files` describes, in which document i
is label i, prompt and all, and beside them

    train.good.npy   u8[labels]: 1 where the answer was found good          labels.json   a sha256 of it for each split
    table.json       what was read, left out and cut

Letters: S the two sides (own answer, another's), L positions.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import rich

from align.columns import read_column, write_column
from align.labels import Criticised, Halves, Single
from align.pair_tokens import fit_answers
from model.chat import ChatML, Rendered, Template, check_controls
from model.errors import ConfigError, DataError
from model.tokenizer import Tokenizer
from train.artifact import Artifact, Store, write_json
from train.data.corpus import TABLE, Corpus
from train.data.document import SPLITS, Split
from train.data.encoding import Encoded
from train.data.shuffle import key, permutation
from train.data.token_files import BYTES_OF, MANIFEST, TokenSplit, open_split, write_split
from train.data.visits import Row
from train.data.vocabulary import Vocabulary

LABELS = 'labels.json'


@dataclass(frozen=True)
class LabelSplit:
  """The labels of a split, open and verified; the tokens lie in a file."""

  tokens: TokenSplit
  good: np.ndarray               # u8[labels]
  seed: int
  sha256: str                    # of all that is in it, and of who gets whose answer

  def __len__(self) -> int:
    return len(self.good)

  def row(self, label: int, length: int) -> Row:
    """tokens and segments i32[2, length], mask f32[2, length], label f32[]: the own answer first, then another's."""
    tokens, segments, mask = (np.zeros((2, length), kind) for kind in (np.int32, np.int32, np.float32))
    for side, (ids, answer) in enumerate((self.rendered(label), self.mismatched(label, length))):
      tokens[side, :len(ids)], segments[side, :len(ids)], mask[side, :len(ids)] = ids, 1, answer
    return {'tokens': tokens, 'segments': segments, 'mask': mask, 'label': np.asarray(self.good[label], np.float32)}

  def rendered(self, label: int) -> Rendered:
    """A prompt and its own answer."""
    begin, end = self.tokens.offsets[label:label + 2]
    assert self.tokens.mask is not None, 'labels are written with a mask'
    return Rendered(self.tokens.ids[begin:end], self.tokens.mask[begin:end])

  def mismatched(self, label: int, length: int) -> Rendered:
    """The same prompt and the answer of another label, cut off at `length`."""
    sides = [self._parted(label), self._parted(self.partner(label))]
    prompt, answer = sides[0][0], sides[1][1]
    ids, mask = (np.concatenate(both)[:length] for both in zip(prompt, answer))
    return Rendered(ids, mask)

  def partner(self, label: int) -> int:
    """Whose answer follows: the next label's in an order that the seed decides, but for those that answer the very same.

    Raises: DataError if all of them do.
    """
    place, own = int(self._places[label]), self._parted(label)[1].ids
    for step in range(1, len(self)):
      other = int(self._order[(place + step) % len(self)])
      if not np.array_equal(self._parted(other)[1].ids, own):
        return other
    raise DataError('label.one-answer', f'{self.tokens.split} labels in {self.tokens.folder}', 'all answers are alike, and '
                    'each is to be compared with another', 'add labels of other answers')

  def describe(self, label: int) -> str:
    """Where a label is from, for a person."""
    return self.tokens.describe(label)

  @cached_property
  def _order(self) -> np.ndarray:
    return permutation(key(self.seed, 'mismatched', self.tokens.split), len(self))

  @cached_property
  def _places(self) -> np.ndarray:
    return np.argsort(self._order)

  def _parted(self, label: int) -> tuple[Rendered, Rendered]:
    """All before the first token of the answer, and the rest."""
    ids, mask = self.rendered(label)
    first = int(np.argmax(mask))
    return Rendered(ids[:first], mask[:first]), Rendered(ids[first:], mask[first:])


@dataclass(frozen=True, kw_only=True)
class LabelTokens(Artifact):
  """The labels that `labelling` makes of a corpus, as a template writes them, none of more than `longest` tokens."""

  corpus: Corpus
  vocabulary: Vocabulary
  labelling: Single | Halves | Criticised = Single()
  template: Template = ChatML()
  longest: int = 512
  seed: int = 0                  # of who gets whose answer

  def __post_init__(self):
    if self.longest < 2:
      raise ConfigError('config.out-of-range', f'longest = {self.longest}', 'it counts tokens', 'use 2 or more')
    kinds = self.labelling.stages
    if odd := [stage.name for stage in (*self.corpus.stages, *self.corpus.augment) if not isinstance(stage, kinds)]:
      raise ConfigError('label.stages', f'corpus {self.corpus.name!r}: {", ".join(odd)}',
                        'its documents are JSON, which these stages would take for prose',
                        f'use {", ".join(kind.__name__ for kind in kinds)} or none: stages=()')

  def make(self, folder: Path, store: Store) -> None:
    """Writes the files. Raises: DataError for a label that the template refuses, or if none is left to train on."""
    tokenizer = self.vocabulary.load(store)
    check_controls(self.template, tokenizer)
    np.save(folder / BYTES_OF, tokenizer.bytes_of)
    counts: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    sources: list[str] = []
    splits, marks = {}, {}
    for split in SPLITS:
      good: list[bool] = []
      rendered = self._rendered(store, split, tokenizer, good, counts[split])
      splits[split] = write_split(folder, split, rendered, tokenizer.bytes_of, sources)
      marks[split] = write_column(folder, split, 'good', np.array(good, np.uint8))
    write_json(folder / TABLE, counts)
    rich.print(f'labels {self.name}', *(f'  {split}: {what}: {count:,}' for split in SPLITS
                                        for what, count in counts[split].items() if count), sep='\n')
    if not splits['train']['documents']:
      raise DataError('label.none', f'labels {self.name}', f'none is left to train on: {dict(counts["train"])}',
                      'allow for more tokens, or add data')
    write_json(folder / MANIFEST, {'tokenizer': tokenizer.fingerprint, 'size': tokenizer.size, 'sources': sources,
                                   'controls': tokenizer.controls, 'splits': splits})
    write_json(folder / LABELS, marks)

  def open(self, store: Store, split: Split) -> LabelSplit:
    """The labels of a split. Raises: DataError if they are not as they were written."""
    folder = store.find(self)
    tokens = open_split(folder, split)
    good, mark = read_column(folder, split, 'good', LABELS, len(tokens.offsets) - 1)
    return LabelSplit(tokens, good, self.seed, hashlib.sha256(f'{tokens.sha256}{mark}{self.seed}'.encode()).hexdigest())

  def _rendered(self, store: Store, split: Split, tokenizer: Tokenizer, good: list[bool],
                counts: Counter[str]) -> Iterator[Encoded]:
    """Each label of which something is left to judge; whether it is good goes to `good`."""
    for id, label in self.labelling(self.corpus, store.find(self.corpus), split, counts):
      fit = fit_answers(self.template, tokenizer, label.prompt, [label.answer], self.longest, id)
      if fit is None:
        counts[f'labels left out: no answer within {self.longest} tokens'] += 1
        continue
      counts.update({'labels': 1, 'good': int(label.good), 'labels with oldest turns left out': int(fit.turns > 0),
                     'labels with the end of the answer cut off': int(fit.tokens > 0), 'tokens cut off': fit.tokens})
      good.append(label.good)
      yield Encoded(self.corpus.name, id, *fit.answers[0])
