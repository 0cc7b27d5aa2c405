"""A TFDS dataset out of documents: for sharing a prepared corpus with any program that reads TFDS.

    write(Path('shared'), {'train': lambda: corpus.documents(folder, 'train')})
    Tfds('athanor_text', data_dir='shared').read()
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from model.errors import DataError
from train.data.document import Document

Documents = Callable[[], Iterator[Document]]


class AthanorText(tfds.core.GeneratorBasedBuilder):
  """Documents as examples with the strings `text`, `source`, `id`, and `meta` as JSON, in the format array_record."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'text, source, id, meta'}     # noqa: RUF012  (TFDS's own way)

  def __init__(self, splits: Mapping[str, Documents] | None = None, **kwargs: Any):
    self._splits = dict(splits or {})
    super().__init__(**{**kwargs, 'file_format': 'array_record'})     # tfrecord, the default, needs TensorFlow

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    features = tfds.features.FeaturesDict({'text': text, 'source': text, 'id': text, 'meta': text})
    return tfds.core.DatasetInfo(builder=self, features=features, description='Documents prepared by Athanor.')

  def _split_generators(self, manager: Any) -> dict[str, Iterator]:
    del manager     # nothing is downloaded
    return {name: self._generate_examples(documents) for name, documents in self._splits.items()}

  def _generate_examples(self, documents: Documents) -> Iterator[tuple[int, dict[str, str]]]:
    for number, document in enumerate(documents()):
      yield number, {'text': document.text, 'source': document.source, 'id': document.id,
                     'meta': json.dumps(document.meta, ensure_ascii=False, sort_keys=True)}


def write(data_dir: Path, splits: Mapping[str, Documents]) -> Path:
  """The folder of the dataset `athanor_text` under `data_dir`, with the documents of each split. TFDS shuffles them.

  Raises: DataError if one is there already, which TFDS would silently keep.
  """
  builder = AthanorText(splits, data_dir=str(data_dir))
  if builder.is_prepared():
    raise DataError('data.already-there', str(builder.data_path), 'a dataset is prepared there already',
                    'remove it or name another folder')
  builder.download_and_prepare()
  return Path(builder.data_path)
