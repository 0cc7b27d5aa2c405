"""Preference pairs with a flag for each side, whether it is safe: what a cost model (`align.cost`) learns from.

    {"prompt": "...", "chosen": "...", "rejected": "...", "safe": [true, false]}            a line of `SafetyLines`

The chosen side is the less harmful one, as people found; both may be safe, or neither (Ji et al. 2023, BeaverTails). The
folder has beside the files of all pairs, for each split,

    train.safe.npy   u8[pairs, 2]: 1 for a safe side, the chosen one first          safe.json   a sha256 of each
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.conversations import to_text
from align.pair_tokens import PairSplit, PairTokens
from align.preferences import Given, Pair, PairLines, pair_in, pair_text
from model.errors import DataError
from train.artifact import Store, write_json
from train.data.columns import read_column, write_column
from train.data.corpus import Corpus
from train.data.document import SPLITS, Document, Split, held_out
from train.data.readers import parse
from train.data.visits import Row

SAFE = 'safe.json'
Sides = tuple[bool, bool]


def safety_in(record: dict[str, Any], where: str) -> tuple[Pair, Sides]:
  """The pair of a record, and which of its sides are safe. Raises: DataError as `pair_in`, and for a bad `safe`."""
  safe = record.get('safe')
  if not isinstance(safe, list) or len(safe) != 2 or not all(isinstance(each, bool) for each in safe):
    raise DataError('safety.bad-flags', f"{where}: field 'safe' is {safe!r:.60}", 'it says of both sides whether they are '
                    'safe, the chosen one first', 'write for example "safe": [true, false]')
  if safe == [False, True]:
    raise DataError('safety.order', where, 'the chosen side is the less harmful one, and only the other is safe',
                    'exchange chosen and rejected')
  return pair_in({name: value for name, value in record.items() if name != 'safe'}, where), (safe[0], safe[1])


@dataclass(frozen=True)
class SafetyLines(PairLines):
  """One pair for each line, as `PairLines` has them, and `"safe"`."""

  def document(self, record: dict, name: str, where: str) -> Document:
    pair, safe = safety_in(record, where)
    return Document(json.dumps(json.loads(pair_text(pair)) | {'safe': safe}, ensure_ascii=False, separators=(',', ':')),
                    self.source, name)


@dataclass(frozen=True)
class Safety(Given):
  """Each document of the corpus is a pair with flags. A hash of its prompt holds it out."""

  def __call__(self, corpus: Corpus, folder: Path, split: Split, counts: Counter[str]) -> Iterator[tuple[str, Pair]]:
    """(id, pair) for each document. Raises: DataError for a document that is no such pair."""
    for where, (pair, _) in flagged(corpus, folder):
      if held_out(to_text(pair.prompt), corpus.heldout_modulo) == (split == 'heldout'):
        counts['pairs read'] += 1
        yield where, pair


def flagged(corpus: Corpus, folder: Path) -> Iterator[tuple[str, tuple[Pair, Sides]]]:
  """(source:id, (pair, flags)) for every document of a corpus, both splits."""
  for document in (document for part in SPLITS for document in corpus.documents(folder, part)):
    where = f'{document.source}:{document.id}'
    yield where, safety_in(parse(document.text, where), where)


@dataclass(frozen=True)
class SafetySplit(PairSplit):
  """An open split of pairs with flags."""

  safe: np.ndarray               # u8[pairs, 2]

  def row(self, pair: int, length: int) -> Row:
    """The columns of a pair and safe f32[2]."""
    return super().row(pair, length) | {'safe': self.safe[pair].astype(np.float32)}


@dataclass(frozen=True, kw_only=True)
class SafetyPairs(PairTokens):
  """`PairTokens` of pairs with flags."""

  pairing: Safety = Safety()

  def make(self, folder: Path, store: Store) -> None:
    """Writes the files. Raises: DataError as `PairTokens.make`, and if two pairs of one id differ in their flags."""
    super().make(folder, store)
    known: dict[str, Sides] = {}
    for where, (_, safe) in flagged(self.corpus, store.find(self.corpus)):
      if known.setdefault(where, safe) != safe:
        raise DataError('safety.twice', f'{self.corpus.name}: {where}', 'two pairs have this id, and their flags differ',
                        'give the readers sources of their own')
    marks = {}
    for split in SPLITS:
      ids = list(map(json.loads, (folder / f'{split}.ids.jsonl').read_text().splitlines()))[::2]
      marks[split] = write_column(folder, split, 'safe', np.array([known[id] for id in ids], np.uint8).reshape(-1, 2))
    write_json(folder / SAFE, marks)

  def open(self, store: Store, split: Split) -> SafetySplit:
    """The pairs of a split. Raises: DataError if they are not as they were written."""
    opened = super().open(store, split)
    safe, mark = read_column(store.find(self), split, 'safe', SAFE, len(opened))
    return SafetySplit(opened.tokens, opened.judged, hashlib.sha256(f'{opened.sha256}{mark}'.encode()).hexdigest(), safe)
