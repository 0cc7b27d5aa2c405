"""Texts and words with labels, as tokens on disk and the class of each token that is judged.

    LabelledTokens(corpus=..., vocabulary=..., classes=('ham', 'spam'))                           a label a text
    LabelledTokens(corpus=..., vocabulary=..., classes=('O', 'PER', ...), labelling=Words())      a label a word

The folder has, for each split, the files that `train.data.token_files` describes, whose mask is 1 where a token is judged, and

    train.classes.npy   u16[tokens]: the number of its class, and 0 where no token is judged        classes.json   a sha256 each
    table.json          what was read and cut, and how many are of each class
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import rich

from model.errors import ConfigError, DataError
from model.tokenizer import Tokenizer
from train.artifact import Store, write_json
from train.data.columns import read_column, write_column
from train.data.corpus import TABLE
from train.data.document import SPLITS, Split
from train.data.encoding import Encoded
from train.data.labelling import Labelled, Texts, Words
from train.data.pack import Span, lay
from train.data.token_files import TokenSplit, open_split
from train.data.tokens import TokenFiles

COLUMN, MARKS = 'classes', 'classes.json'


@dataclass(frozen=True)
class LabelledSplit(TokenSplit):
  """A split, open and verified; its mask is 1 where a token is judged."""

  _: KW_ONLY
  classes: np.ndarray                    # u16[tokens]
  mark: str                              # sha256 of the classes

  def row(self, spans: list[Span], starts: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """tokens, segments, targets i32[length + 1]; mask f32[length + 1], 1 where a target counts."""
    return super().row(spans, starts, length) | {'targets': lay(spans, self.classes, starts, length).astype(np.int32)}

  @property
  def sha256(self) -> str:
    return hashlib.sha256(f'{super().sha256}{self.mark}'.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class LabelledTokens(TokenFiles):
  """The documents of a corpus with the classes of what is judged in them, each cut at `longest` tokens with bos and eos."""

  classes: tuple[str, ...]
  labelling: Texts | Words = Texts()
  longest: int = 256

  def __post_init__(self):
    if not 2 <= len(set(self.classes)) == len(self.classes) <= 1 << 16:
      raise ConfigError('classes.names', f'classes = {self.classes}', 'they are at least two, and each is named once',
                        'name each class once')
    if self.longest < 3:
      raise ConfigError('config.out-of-range', f'longest = {self.longest}', 'bos and eos are among them', 'use 3 or more')
    self.labelling.check(self.corpus)

  def make(self, folder: Path, store: Store) -> None:
    """Writes the files. Raises: DataError for a label that is no class, or if there is no training document."""
    tokenizer = self.vocabulary.load(store)
    classes: dict[Split, list[np.ndarray]] = {split: [np.zeros(0, np.uint16)] for split in SPLITS}
    counts: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    self.write(folder, tokenizer, lambda split: self._encoded(store, split, tokenizer, classes[split], counts[split]))
    write_json(folder / MARKS, {split: write_column(folder, split, COLUMN, np.concatenate(classes[split])) for split in SPLITS})
    write_json(folder / TABLE, counts)
    rich.print(f'labelled texts {self.name}', *(f'  {split}: {what}: {count:,}' for split in SPLITS
                                                for what, count in counts[split].items() if count), sep='\n')

  def open(self, store: Store, split: Split) -> LabelledSplit:
    """The split. Raises: DataError if it is not as it was made."""
    opened = open_split(store.find(self), split)
    classes, mark = read_column(opened.folder, split, COLUMN, MARKS, len(opened.ids))
    return LabelledSplit(**vars(opened), classes=classes, mark=mark)

  def _encoded(self, store: Store, split: Split, tokenizer: Tokenizer, classes: list[np.ndarray],
               counts: Counter[str]) -> Iterator[Encoded]:
    """The documents; the classes of their tokens go to `classes`."""
    number = {label: index for index, label in enumerate(self.classes)}
    for document in self.corpus.documents(store.find(self.corpus), split):
      found = self.labelling(document, tokenizer, self.longest)
      mask, numbers = np.zeros(len(found.ids), np.uint8), np.zeros(len(found.ids), np.uint16)
      mask[found.places] = 1
      numbers[found.places] = [self._number(number, label, f'{document.source}:{document.id}') for label in found.labels]
      classes.append(numbers)
      self._count(counts, found)
      yield Encoded(document.source, document.id, np.array(found.ids), mask)

  def _number(self, number: dict[str, int], label: str, where: str) -> int:
    if label not in number:
      raise DataError('classes.unknown', f'{where}: label {label!r}', f'the classes are {", ".join(self.classes)}',
                      'mend the label, or add it to the classes')
    return number[label]

  def _count(self, counts: Counter[str], found: Labelled) -> None:
    counts.update({'documents': 1, 'documents cut': int(found.cut > 0), 'tokens cut off': found.cut})
    counts.update(f'of class {label}' for label in found.labels)
