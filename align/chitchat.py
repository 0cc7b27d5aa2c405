"""The Chit-Chat dataset: 7,168 conversations of 2018, rated by those who had them, from a wheel that is never run."""

import zipfile
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from align.conversations import to_text
from model.chat import Message, Role
from model.errors import DataError
from train.data.document import Document
from train.data.fetch import Wheel, fetch
from train.data.files import decode, whole
from train.data.readers import Reader, parse

CHITCHAT = Wheel('chitchat-dataset', '0.9.0', '7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e')
DATASET = 'chitchat_dataset/dataset.json'
SIDES: tuple[Role, Role] = ('user', 'assistant')


@dataclass(frozen=True)
class Chitchat(Reader):
  """Every conversation of the Chit-Chat Challenge (Brigham Young University, MIT), one-sided ones too: see `Turns`.

  Whoever writes first is the user, the other is the assistant; what one of them writes in a row is one message, a line each.
  The topic that both were shown, if any, is the system message. `meta` has that topic and the ratings.
  """

  wheel: Wheel = CHITCHAT
  _: KW_ONLY
  source: str = 'chitchat'

  def files(self) -> list[Path]:
    return [fetch(self.wheel)]

  def records(self) -> Iterator[Document | DataError]:
    where = f'{self.wheel.file}: {DATASET}'
    with zipfile.ZipFile(fetch(self.wheel)) as archive:
      talks = parse(decode(archive.read(DATASET), where), where)
    for id, talk in talks.items():
      yield self._document(id, talk, f'{where}: {id}')

  def _document(self, id: str, talk: dict[str, Any], where: str) -> Document | DataError:
    topic = {'prompt': talk['prompt']} if talk.get('prompt') else {}
    ratings = {name: str(value) for name, value in talk.get('ratings', {}).items()}
    scene = [Message('system', text) for text in topic.values()]
    try:
      return Document(whole(to_text([*scene, *turns(talk['messages'])]), where), self.source, id, topic | ratings)
    except DataError as error:
      return error


def turns(groups: list[list[dict[str, str]]]) -> list[Message]:
  """The messages of two people; lines of nothing but blanks are no messages."""
  lines = [(line['sender'], line['text']) for group in groups for line in group if line['text'].strip()]
  role_of = dict(zip(dict.fromkeys(sender for sender, _ in lines), SIDES))
  return [Message(role_of[sender], '\n'.join(text for _, text in run)) for sender, run in groupby(lines, itemgetter(0))]
