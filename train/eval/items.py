"""The items of a task: documents of a corpus, chosen by the hash of their text, so that every model gets the same ones."""

import hashlib
from collections.abc import Sequence

from model.errors import ConfigError, DataError
from train.artifact import Store
from train.data.corpus import Corpus
from train.data.document import Document, Split, size


def chosen(corpus: Corpus, store: Store, splits: Sequence[Split], items: int, longest: int, needs: str = '') -> list[Document]:
  """At most so many documents of at most `longest` bytes that say something in `meta` under `needs`, in their order.

  Of more, those whose text has the smallest sha256: as good as drawn, and the same whatever joins the corpus behind them.
  Raises: DataError where there is none.
  """
  folder = store.find(corpus)
  found = [document for split in splits for document in corpus.documents(folder, split)
           if 0 < size(document.text) <= longest and (not needs or document.meta.get(needs, '').strip())]
  if not found:
    lacks = f', and says {needs!r} in its meta' if needs else ''
    raise DataError('task.no-item', f'{corpus.name}, {" and ".join(splits)}', f'no document has {longest} bytes or fewer'
                    f'{lacks}', 'take another corpus or split, or raise `longest`')
  last = sorted(map(_place, found))[min(items, len(found)) - 1]
  return [document for document in found if _place(document) <= last]


def _place(document: Document) -> str:
  return hashlib.sha256(document.text.encode()).hexdigest()


def named(documents: Sequence[Document]) -> list[str]:
  """Their ids in a task, each once."""
  return [f'{document.source}:{document.id}' for document in documents]


def check_counts(**counts: int) -> None:
  """Raises: ConfigError where one is less than 1."""
  if min(counts.values()) < 1:
    raise ConfigError('config.out-of-range', ', '.join(f'{name} = {value}' for name, value in counts.items()),
                      'they are counts', 'use 1 or more of each')
