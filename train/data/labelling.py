"""Where the labels of a document are in its tokens: one for the text as a whole, or one for each word.

    Texts()        a text, whose `meta` says its label; it is judged at its first token, bos
    Words()        a document of `WordLines`, where each word has a label; it is judged at the first piece of each word

    {"words": ["Ada", "sang"], "labels": ["PER", "O"]}               a line of `WordLines`
"""

import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

from model.errors import ConfigError, DataError
from model.tokenizer import Tokenizer
from train.data.corpus import Corpus
from train.data.document import Document
from train.data.files import whole
from train.data.readers import Lines
from train.data.stage import InOrder

BEFORE = 'a'                       # stands before a word that is not the first, so that it is encoded as what follows a space


class Labelled(NamedTuple):
  """A document in tokens, `bos ids eos`, and its labels with their places among these."""

  ids: list[int]
  places: list[int]
  labels: list[str]
  cut: int                         # tokens that were left out


@dataclass(frozen=True)
class Texts:
  """Each document is one text, with its label in `meta` under this name."""

  label: str = 'label'

  def check(self, corpus: Corpus) -> None:
    pass

  def __call__(self, document: Document, tokenizer: Tokenizer, longest: int) -> Labelled:
    """Raises: DataError for a document without a label, or without a token."""
    if self.label not in document.meta:
      raise DataError('classes.no-label', f'{document.source}:{document.id}: meta {self.label!r}',
                      f'it says {", ".join(map(repr, document.meta)) or "nothing"}', 'name the field that holds the label')
    ids = tokenizer.encode(document.text)
    if not ids:
      raise DataError('classes.no-text', f'{document.source}:{document.id}', 'there is no token in its text', 'leave it out')
    kept = ids[:longest - 2]
    return Labelled([tokenizer.bos, *kept, tokenizer.eos], [0], [document.meta[self.label]], len(ids) - len(kept))


@dataclass(frozen=True)
class Words:
  """Each document is a list of words with a label each. Words that do not fit as a whole are left out, with their labels."""

  def check(self, corpus: Corpus) -> None:
    if odd := [stage.name for stage in (*corpus.stages, *corpus.augment) if not isinstance(stage, InOrder)]:
      raise ConfigError('classes.stages', f'corpus {corpus.name!r}: {", ".join(odd)}',
                        'its documents are JSON, which these stages would take for prose', 'use ExactDuplicates or stages=()')

  def __call__(self, document: Document, tokenizer: Tokenizer, longest: int) -> Labelled:
    """Raises: DataError for a document that is not of words and labels, or a word without a token."""
    where = f'{document.source}:{document.id}'
    words, labels = words_in(json.loads(document.text), where)
    ids, places = [tokenizer.bos], []
    pieces = pieces_of(words, tokenizer)
    for word, found in zip(words, pieces):
      if not found:
        raise DataError('classes.no-text', f'{where}: word {word!r}', 'there is no token in it', 'leave it out, with its label')
      if len(ids) + len(found) + 1 > longest:
        break
      places.append(len(ids))
      ids += found
    cut = sum(map(len, pieces)) - (len(ids) - 1)
    return Labelled([*ids, tokenizer.eos], places, labels[:len(places)], cut)


def pieces_of(words: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
  """The ids of each word: put together, they are those of the words with a space between them."""
  before = len(tokenizer.encode(BEFORE))
  return [tokenizer.encode(f'{BEFORE} {word}')[before:] if i else tokenizer.encode(word) for i, word in enumerate(words)]


def words_in(record: Any, where: str) -> tuple[list[str], list[str]]:
  """The words and the labels that a record says. Raises: DataError that names what is missing, empty or of another kind."""
  words, labels = (_texts_in(record, name, where) for name in ('words', 'labels'))
  if len(words) != len(labels):
    raise DataError('classes.words', where, f'there are {len(words)} words and {len(labels)} labels', 'give each word a label')
  return words, labels


def _texts_in(record: Any, name: str, where: str) -> list[str]:
  found = record.get(name) if isinstance(record, dict) else None
  if not isinstance(found, list) or not found or not all(isinstance(each, str) and each.strip() for each in found):
    raise DataError('classes.no-words', f'{where}: field {name!r}', 'it is no list of texts, or one of them is empty',
                    'write {"words": ["Ada", "sang"], "labels": ["PER", "O"]}')
  return found


@dataclass(frozen=True)
class WordLines(Lines):
  """One document of words for each line: `{"words": [...], "labels": [...]}`; other fields are left out."""

  _: KW_ONLY
  source: str = 'words'

  def document(self, record: dict, name: str, where: str) -> Document:
    words, labels = words_in(record, where)
    text = json.dumps({'words': words, 'labels': labels}, ensure_ascii=False, separators=(',', ':'))
    return Document(whole(text, where), self.source, name)
