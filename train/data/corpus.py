"""The corpus as an artifact: sources, prepared and split, a table of what was dropped, a manifest of what is there.

    corpus = Corpus(name='sotu', sources=(sotu(),))
    for document in corpus.documents(store.make(corpus), 'train'): ...

In a job of several processes the store has the first prepare it, over as many workers as it likes, while the others wait.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rich
from absl import logging
from tqdm import tqdm

from model.errors import ConfigError, DataError
from train.artifact import Artifact, Store, how, read_json, write_json
from train.canonical import added
from train.data.clean import SplitLong, Unicode
from train.data.dedupe import ExactDuplicates, NearDuplicates
from train.data.document import SPLITS, Document, Split, set_apart
from train.data.intake import Intake, changed, fingerprints, twins
from train.data.language import Language
from train.data.pii import Pii
from train.data.prepare import Pass
from train.data.quality import FineWeb, Gopher, GopherRepetition
from train.data.readers import Reader, Written
from train.data.shards import Shards, read_shard
from train.data.spare import spared
from train.data.stage import Stage
from train.data.table import drawn

DOCUMENTS, PART, TABLE, MANIFEST = 'documents', 'documents.part', 'table.json', 'manifest.json'
SHOWN = 3               # of the files that changed, so many are named
A_WORKER = 8 << 20      # bytes of source files that are worth starting another process for

ENGLISH: tuple[Stage, ...] = (SplitLong(), Unicode(), Language(), Gopher(), GopherRepetition(), FineWeb(), Pii(),
                              ExactDuplicates(), NearDuplicates())
"""English text, from the web or better: cleaned, filtered, scrubbed, and each text once."""


@dataclass(frozen=True, kw_only=True)
class Corpus(Artifact):
  """Documents of `sources` after `stages`, split by the hash of their text; `augment` adds copies of the training ones.

  About one in `heldout_modulo` is held out. With `heldout_by`, the name of a field of `meta`, the hash is of that field, so
  that all texts about one film, or by one writer, are on one side. With `heldout_as`, that field of `meta` says `train` or
  `heldout`: for data sets that come with a split.
  `workers` is the number of processes (None: one a core, but no more than one for 8 MB of files); what comes out does not
  depend on it. The folder holds the documents, `table.json` (what was dropped and why) and `manifest.json` (hashes of all
  that was read and written).
  """

  sources: tuple[Reader | Written, ...]
  stages: tuple[Stage, ...] = ENGLISH
  augment: tuple[Stage, ...] = ()
  heldout_modulo: int = 20
  heldout_by: str | None = added(None)
  heldout_as: str | None = added(None)
  workers: int | None = how(None)

  def __post_init__(self):
    if not self.sources:
      raise ConfigError('config.no-sources', f'corpus {self.name!r}', 'it is made from nothing', 'name a reader')
    if self.heldout_modulo < 2:
      raise ConfigError('config.out-of-range', f'heldout_modulo={self.heldout_modulo}',
                        'one in so many documents is held out, and some must be left to train on', 'give at least 2')
    if self.heldout_as is not None and (self.heldout_by is not None or self.augment):
      raise ConfigError('config.heldout-as', f'heldout_as = {self.heldout_as!r}', 'heldout_by and augment go by a hash, and '
                        'here documents say themselves on which side they are', 'leave out the one or the other')
    if self.workers is not None and self.workers < 1:
      raise ConfigError('config.out-of-range', f'workers={self.workers}', 'somebody must do it', 'give 1 or more')

  def make(self, folder: Path, store: Store) -> None:
    """Prepares the documents, unless that is done. Raises: DataError as readers and stages do."""
    if not _whole(folder):
      self._make(folder, store)

  def documents(self, folder: Path, split: Split) -> Iterator[Document]:
    """The documents of a split in their stable order. Raises: DataError if they are not the bytes that were written."""
    for shard in manifest(folder)['shards']:
      if shard['split'] == split:
        yield from read_shard(folder / DOCUMENTS, shard)

  def outdated(self, folder: Path) -> str:
    """Which of its files changed or are gone: `2 of its 9 files changed since: a.txt, b.txt (gone)`."""
    names = [path if Path(path).exists() else f'{path} (gone)' for path in self.changed_sources(folder)]
    if not names:
      return ''
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return f'{len(names)} of its {len(manifest(folder)["files"])} files changed since: {", ".join(names[:SHOWN])}{more}'

  def changed_sources(self, folder: Path) -> list[str]:
    """The files that are not any more what this corpus was made from. New ones that its patterns match are not seen.

    A file whose very folder is gone is passed over: an emptied cache or a disk that is not mounted changes no text.
    """
    return [path for path in changed(manifest(folder)['files']) if Path(path).parent.exists()]

  def _make(self, folder: Path, store: Store) -> None:
    for name in (DOCUMENTS, PART):
      shutil.rmtree(folder / name, ignore_errors=True)
    (folder / PART).mkdir()
    sources = tuple(source.reader(store) if isinstance(source, Written) else source for source in self.sources)
    files = fingerprints([(reader.source, path) for reader in sources for path in reader.files()])
    aids = fingerprints([(stage.name, path) for stage in (*self.stages, *self.augment) for path in stage.files()])
    stages = (*self.stages, *(spared(stage, self.heldout_modulo, self.heldout_by) for stage in self.augment))
    with Pass(stages, self._workers(files), store) as work, Shards(folder / PART) as shards:
      intake = Intake(sources, work.table)
      prepared = work.run(intake.documents())
      for document in tqdm(prepared, f'preparing {self.name}', unit=' documents', leave=False, disable=None):
        split = self._side(document)
        shards.write(document, split)
        work.table.wrote(document, split)
    table = work.table.json([stage.name for stage in stages])
    _check(self.name, table)
    warnings = twins(files) + intake.warnings() + _missing(table)
    (folder / PART).rename(folder / DOCUMENTS)
    write_json(folder / TABLE, table | {'warnings': warnings})
    contents = {'heldout_modulo': self.heldout_modulo, 'shards': shards.written, 'files': files + aids}
    write_json(folder / MANIFEST, contents)
    rich.print(drawn(table, f'corpus {self.name}'))
    for warning in warnings:
      logging.warning('corpus %s: %s', self.name, warning)

  def _side(self, document: Document) -> Split:
    if self.heldout_as is None:
      return 'heldout' if set_apart(document, self.heldout_modulo, self.heldout_by) else 'train'
    said = document.meta.get(self.heldout_as)
    if said not in SPLITS:
      raise DataError('data.no-split', f'document {document.source}:{document.id}: meta {self.heldout_as!r} is {said!r}',
                      'it says neither train nor heldout', 'say it of every document, or set heldout_as to None')
    return said

  def _workers(self, files: list[dict]) -> int:
    if self.workers is not None:
      return self.workers
    return max(1, min(os.cpu_count() or 1, sum(entry['bytes'] for entry in files) // A_WORKER))


def manifest(folder: Path) -> dict:
  """What was read and written: `shards`, `files`, `heldout_modulo`. Raises: DataError if the corpus is not made."""
  path = Path(folder) / MANIFEST
  if not path.exists():
    raise DataError('data.no-corpus', str(folder), 'no corpus is made there', 'launch it first')
  return read_json(path)


def _whole(folder: Path) -> bool:
  """Whether a corpus lies there with all its shards; the manifest is written last."""
  if not (folder / MANIFEST).exists():
    return False
  return all((folder / DOCUMENTS / shard['file']).exists() for shard in manifest(folder)['shards'])


def _check(name: str, table: dict) -> None:
  """Raises: DataError if no document is left to train on, with what took most of them."""
  if any(row['split'] == 'train' for row in table['written']):
    return
  drops = sorted((row for row in table['rows'] if row['effect'] == 'dropped'), key=lambda row: -row['documents'])
  why = '; '.join(f'{row["stage"]} dropped {row["documents"]:,}: {row["reason"]}' for row in drops[:3])
  read = table['read']['documents']
  raise DataError('data.nothing-left', f'corpus {name!r}: of {read:,} documents none is left to train on',
                  why or 'all of them are held out', 'loosen or leave out those stages, or add sources')


def _missing(table: dict) -> list[str]:
  held = any(row['split'] == 'heldout' for row in table['written'])
  return [] if held else ['no document is held out: the corpus is small, so lower heldout_modulo']
