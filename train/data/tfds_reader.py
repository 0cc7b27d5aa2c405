"""Datasets of TFDS, without TensorFlow: those prepared as array_record, and the built-in ones for users with internet.

TFDS reads and writes without TensorFlow only in the format array_record (tfrecord, its default, fails at the end of
generation; parquet silently loses rows).
"""

import importlib
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from model.errors import DataError
from train.data.document import Document
from train.data.files import decode, whole
from train.data.readers import Reader, guarded, text_in

CATEGORIES = ('text', 'summarization', 'question_answering', 'translate')     # TFDS does not know them until imported
WAIT = 8.0          # seconds for the first answer of a dataset's host; TFDS alone would retry for minutes
ELSEWHERE = 'prepare it elsewhere with file_format="array_record" and name its folder as data_dir'
HOST = 'https://storage.googleapis.com/tfds-data/'


@dataclass(frozen=True)
class Examples(Reader):
  """One document for each example of a split. Names and splits as in TFDS: `c4/en`, `train[:1%]`.

  A dataset that is prepared under `data_dir` (None: TFDS's own folder) is only read. One that is not is downloaded and
  prepared as array_record, if TFDS knows the name and the internet can be reached.
  """

  name: str
  split: str = 'train'
  data_dir: str | None = None

  @abstractmethod
  def text(self, example: dict[str, Any], where: str) -> str:
    """The document's text. Raises: DataError where the example has none."""

  def files(self) -> list[Path]:
    return sorted(path for path in Path(self._prepared().data_path).iterdir() if path.is_file())

  def records(self) -> Iterator[Document | DataError]:
    yield from guarded(self._examples())

  def _examples(self) -> Iterator[Document | DataError]:
    builder = self._prepared()
    with _refused(f'{self.name}[{self.split}] in {builder.data_path}', 'check the split; prepare it as array_record'):
      examples = builder.as_data_source(self.split)
    for number in range(len(examples)):
      where = f'{self.name}[{self.split}] in {builder.data_path}: record {number}'
      with _refused(where, 'fetch or prepare the dataset again'):
        example = examples[number]
      yield self._document(example, number, where)

  def _document(self, example: dict, number: int, where: str) -> Document | DataError:
    try:
      text = self.text(example, where)
    except DataError as error:
      return error
    own = example.get('id')
    id = own.decode('utf-8', 'replace') if isinstance(own, bytes) else f'{self.name}/{self.split}:{number}'
    return Document(text, self.source, id)

  def _prepared(self) -> Any:
    builder = builder_of(self.name, self.data_dir)
    if not builder.is_prepared():
      check_reachable(self.name, next(iter(builder.url_infos or ()), HOST))
      _prepare(self.name, builder)
    return builder


@dataclass(frozen=True)
class Tfds(Examples):
  """The text in `field` of each example."""

  field: str = 'text'
  _: KW_ONLY
  source: str = 'tfds'

  def text(self, example: dict[str, Any], where: str) -> str:
    return field_of(example, self.field, where)


def field_of(example: dict[str, Any], field: str, where: str) -> str:
  """The text of a field; TFDS gives it as bytes. Raises: DataError if there is no such field, or it holds no UTF-8."""
  raw = example.get(field)
  texts = {field: decode(raw, where)} if isinstance(raw, bytes) else {}
  return whole(text_in(example | texts, field, where), where)


def builder_of(name: str, data_dir: str | None) -> Any:
  """TFDS's builder of this name. Raises: DataError, with the nearest names, if there is none."""
  import tensorflow_datasets as tfds  # 0.5 s to load, and only these readers need it
  where = str(Path(data_dir).expanduser()) if data_dir else None
  for category in (None, *CATEGORIES):
    if category:
      importlib.import_module(f'tensorflow_datasets.{category}')
    with _refused(f'TFDS dataset {name!r}', 'check the name and its config'), suppress(tfds.core.DatasetNotFoundError):
      return tfds.builder(name, data_dir=where)
  near = get_close_matches(name.split('/')[0], tfds.list_builders(with_community_datasets=False), 3)
  it_has = f'; it has {", ".join(near)}' if near else ''
  raise DataError('data.no-such-dataset', f'TFDS dataset {name!r} in {where or "the default folder"}',
                  f'none is prepared there, and TFDS has no builder of this name{it_has}',
                  'check the name and data_dir')


def check_reachable(name: str, url: str) -> None:
  """Raises: DataError, within seconds, if nothing answers at a dataset's address. TFDS would try again for minutes."""
  import requests
  said: list[object] = []

  def ask():
    try:
      said.append(requests.head(url, timeout=WAIT / 2).status_code)
    except requests.RequestException as error:
      said.append(error)

  asking = threading.Thread(target=ask, daemon=True)
  asking.start()
  asking.join(WAIT)
  if not said or isinstance(said[0], Exception):
    reason = type(said[0]).__name__ if said else f'no answer within {WAIT:.0f} s'
    raise DataError('data.offline', f'TFDS dataset {name!r}',
                    f'it is not prepared here, and its host cannot be reached ({reason})',
                    f'check the network; or {ELSEWHERE}')


def _prepare(name: str, builder: Any) -> None:
  """Downloads and prepares a built-in dataset. Whatever fails there, servers or modules, is one error."""
  try:
    builder.download_and_prepare(file_format='array_record')
  except Exception as error:
    raise DataError('data.tfds-failed', f'TFDS dataset {name!r}', f'{type(error).__name__}: {_first_line(error)}',
                    f'mend that; or {ELSEWHERE}') from error


@contextmanager
def _refused(what: str, do: str) -> Iterator[None]:
  """What TFDS and array_record raise, as errors that name the dataset and the record."""
  try:
    yield
  except (RuntimeError, ValueError, TypeError, OSError, AssertionError) as error:
    raise DataError('data.tfds-refused', what, _first_line(error), do) from error


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0]
