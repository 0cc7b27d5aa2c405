"""Labels: single answers that somebody found good or bad, such as thumbs up and down; a pair gives two. KTO learns from them.

    {"prompt": "Hi", "answer": "Hello!", "label": true}                        a line of `LabelLines`
    {"messages": [...], "answer": [...], "label": false}                       the same in full

A label that is given is a document, as a pair is one. How the documents of a corpus become labels is a value:

    Single()                   each document is a label. A hash of its prompt holds it out
    Halves(Rated())            both sides of each pair: the chosen one is good, the other bad
    Criticised()               each review of a film: good if it is what was asked for (`align.reviews`)
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from align.conversations import WHOLE, Messages
from align.preferences import Given, Rated, answer_in, by_prompt, prompt_in
from align.review_pairs import SameFilm, check_films, review_in
from align.reviews import VERDICTS, Verdict, asks
from model.errors import DataError
from train.data.corpus import Corpus
from train.data.decontaminate import Decontaminate
from train.data.document import Document, Split
from train.data.readers import Lines
from train.data.stage import InOrder

FIELDS = ('prompt', 'messages', 'answer', 'label')


class Label(NamedTuple):
  """An answer, and whether it was found good."""

  prompt: Messages
  answer: Messages
  good: bool


def label_text(label: Label) -> str:
  """A label as the text of a document; equal labels give equal bytes."""
  sides = {name: [message._asdict() for message in getattr(label, name)] for name in ('prompt', 'answer')}
  return json.dumps(sides | {'label': label.good}, ensure_ascii=False, separators=(',', ':'))


def label_in(record: dict[str, Any], where: str) -> Label:
  """The label of a record.

  Raises: DataError that names the field: one that is unknown, missing or of another kind, or an empty answer.
  """
  if unknown := sorted(record.keys() - set(FIELDS)):
    raise DataError('label.unknown-field', f'{where}: {", ".join(unknown)}', f'a label has {", ".join(FIELDS)}',
                    'remove it: what is not understood would be lost')
  if not isinstance(record.get('label'), bool):
    raise DataError('label.no-label', f'{where}: field \'label\' is {record.get("label")!r:.60}', 'it is true or false',
                    'say whether the answer is good')
  return Label(prompt_in(record, where), answer_in(record, 'answer', where), record['label'])


@dataclass(frozen=True)
class LabelLines(Lines):
  """One label for each line: `{"messages" or "prompt", "answer", "label"}`."""

  _: KW_ONLY
  source: str = 'labels'

  def document(self, record: dict, name: str, where: str) -> Document:
    return Document(label_text(label_in(record, where)), self.source, name)


@dataclass(frozen=True)
class Single:
  """Each document of the corpus is a label."""

  stages: ClassVar = (InOrder, Decontaminate)

  def __call__(self, corpus: Corpus, folder: Path, split: Split, counts: Counter[str]) -> Iterator[tuple[str, Label]]:
    """(id, label) for each document. Raises: DataError for a document that is no label."""
    for found in by_prompt(corpus, folder, split, label_in):
      counts['labels read'] += 1
      yield found


@dataclass(frozen=True)
class Halves:
  """The two sides of each pair as labels of their own: the chosen one good, the rejected one bad."""

  pairing: Given | Rated | SameFilm

  @property
  def stages(self) -> tuple[type, ...]:
    return self.pairing.stages

  def __call__(self, corpus: Corpus, folder: Path, split: Split, counts: Counter[str]) -> Iterator[tuple[str, Label]]:
    """(id, label) for each side."""
    for id, pair in self.pairing(corpus, folder, split, counts):
      yield f'{id}: chosen', Label(pair.prompt, pair.chosen, True)
      yield f'{id}: rejected', Label(pair.prompt, pair.rejected, False)


@dataclass(frozen=True)
class Criticised:
  """Each review of a corpus of `Reviews`, as an answer to whoever asks for each of the verdicts that are `asked` for."""

  asked: tuple[Verdict, ...] = VERDICTS

  stages: ClassVar = WHOLE

  def __call__(self, corpus: Corpus, folder: Path, split: Split, counts: Counter[str]) -> Iterator[tuple[str, Label]]:
    """(id, label) for each review and verdict.

    Raises: ConfigError if the corpus does not hold films out as a whole; DataError for a document that is no review.
    """
    check_films(corpus)
    for document in corpus.documents(folder, split):
      film, verdict, review = review_in(document)
      counts['reviews read'] += 1
      yield from ((review.id, Label(asks(film, asked), review.answer, verdict == asked)) for asked in self.asked)
