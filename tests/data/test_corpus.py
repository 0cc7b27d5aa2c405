"""The corpus: the same bytes for any number of workers, a table that adds up, a split by law, no half-made folder."""

import io
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from model.errors import DataError, PeerError
from train.artifact import Store, decode, digest, encode
from train.data.augment import Noise
from train.data.clean import SplitLong, Unicode
from train.data.corpus import ENGLISH, Corpus, manifest
from train.data.decontaminate import Decontaminate, EvaluationSet
from train.data.dedupe import ExactDuplicates, NearDuplicates
from train.data.document import Document, held_out, size
from train.data.intake import twins
from train.data.pii import Pii
from train.data.prepare import Pass, chunks, segments
from train.data.quality import Gopher
from train.data.readers import JsonLines, TextFiles
from train.data.rewrite import Rewrite
from train.data.stage import Batched, Local, Outcome, dropped, edited, kept
from train.data.table import drawn


@dataclass(frozen=True)
class Even(Batched):
  """Keeps every second document of a batch: its outcome depends on how the batches fall."""

  def open(self, store):
    return lambda documents: [kept(d) if i % 2 == 0 else dropped(d, 'odd') for i, d in enumerate(documents)]


@dataclass(frozen=True)
class Lower(Local):
  """Everything in lower case."""

  def open(self):
    return lambda document: edited(document, {'case': lambda text: (text.lower(), sum(map(str.isupper, text)))})


@dataclass(frozen=True)
class Backwards:
  """A rewriter that needs no model."""

  def open(self, store):
    return lambda spans, seeds: [span[::-1] for span in spans]


@dataclass(frozen=True)
class Bomb(Local):
  """Breaks, or takes its process down, at one document."""

  id: str
  kill: bool = False

  def open(self):
    def blow(document: Document) -> Outcome:
      if document.id == self.id:
        if self.kill:
          os._exit(9)
        raise ZeroDivisionError('a bug')
      return kept(document)
    return blow


def messy(folder: Path, count: int = 1500) -> JsonLines:
  """A source with something in it for every stage."""
  sentence = 'The people of county {} have {} to be with that union of the states, and they wrote to a{}@b.org about it. '
  with (folder / 'messy.jsonl').open('w') as file:
    for i in range(count):
      text = ''.join(sentence.format(i * j % 97, chr(97 + i % 26) * (j % 5), i) for j in range(3, 9))
      text = '' if i % 101 == 50 else text.replace('the ', 'THE\r\n') if i % 7 == 0 else '¿Qué?' if i % 53 == 0 else text
      file.write(json.dumps({'text': text, 'key': f'd{i % 1490}'}) + '\n' + ('not json\n' if i % 500 == 3 else ''))
    file.write(json.dumps({'text': sentence * 3000, 'key': 'long'}) + '\n')
  return JsonLines(str(folder / 'messy.jsonl'), id_field='key', tolerate=9, source='messy')


def bytes_in(folder: Path) -> dict[str, bytes]:
  """All that a corpus wrote; not what the store keeps beside it."""
  paths = [folder / 'table.json', folder / 'manifest.json', *sorted((folder / 'documents').iterdir())]
  return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def mixed(tmp_path, sample) -> Corpus:
  """Two sources through every kind of stage, in an order that makes many segments."""
  quiz = EvaluationSet('quiz', TextFiles(f'{sample}/18*.txt'))
  stages = (SplitLong(100_000), Unicode(), ExactDuplicates(), Gopher(fewest_words=20), Even(batch=7), Pii(), Lower(),
            NearDuplicates(similarity=0.9), Decontaminate((quiz,)))
  return Corpus(name='mixed', sources=(messy(tmp_path), TextFiles(f'{sample}/*.txt', source='speeches')), stages=stages,
                augment=(Noise(), Rewrite(Backwards(), batch=5)), heldout_modulo=5, workers=1)


def test_workers_change_nothing(mixed, tmp_path):
  store = Store(tmp_path / 'one')
  once = bytes_in(store.make(mixed))
  assert bytes_in(Store(tmp_path / 'three').make(replace(mixed, workers=3))) == once
  assert digest(replace(mixed, workers=3)) == digest(mixed)
  assert set(once) == {'documents/train-00000.jsonl', 'documents/heldout-00000.jsonl', 'table.json', 'manifest.json'}


def test_the_table_adds_up(mixed, tmp_path):
  folder = Store(tmp_path / 'runs').make(mixed)
  table = json.loads((folder / 'table.json').read_text())
  rows = table['rows']

  def total(effect: str, what: str) -> int:
    return sum(row[what] for row in rows if row['effect'] == effect)

  written = sum(row['documents'] for row in table['written'])
  assert table['read']['documents'] - total('dropped', 'documents') + total('added', 'documents') == written
  grown = sum(row['bytes'] for row in rows)
  assert table['read']['bytes'] + grown == sum(row['bytes'] for row in table['written'])
  documents = [d for split in ('train', 'heldout') for d in mixed.documents(folder, split)]
  assert len(documents) == written and sum(size(d.text) for d in documents) == table['read']['bytes'] + grown
  assert table['read']['documents'] == 1501 + 11 and total('left out', 'documents') == 3
  assert {row['stage'] for row in rows} == {'read', 'SplitLong', 'Unicode', 'ExactDuplicates', 'Gopher', 'Even', 'Pii',
                                            'Lower', 'NearDuplicates', 'Decontaminate', 'Noise', 'Rewrite'}
  assert all(1 <= len(row['examples']) <= 3 and row['documents'] >= len(row['examples']) for row in rows)
  assert table['warnings'] == ['10 documents had an id that stood before; theirs were numbered',
                               '3 broken records were left out']


def test_the_table_can_be_read(mixed, tmp_path):
  table = json.loads((Store(tmp_path / 'runs').make(mixed) / 'table.json').read_text())
  console = Console(width=200, record=True, file=io.StringIO())
  console.print(drawn(table, 'corpus mixed'))
  lines = [[cell.strip() for cell in line.split('│')[1:-1]] for line in console.export_text().splitlines() if '│' in line]
  assert lines[0] == ['read', '', '1,512', '', f'{table["read"]["bytes"]:,}', '']
  assert ['read', 'left out: data.bad-json', '3', '3', '+0'] in [line[:5] for line in lines]
  assert [line[1] for line in lines if line[0] == 'written'][:2] == ['heldout of messy', 'train of messy']


def test_the_split_is_a_law_of_the_text(mixed, tmp_path):
  folder = Store(tmp_path / 'runs').make(mixed)
  documents = {split: list(mixed.documents(folder, split)) for split in ('train', 'heldout')}
  assert all(held_out(d.text, 5) == (split == 'heldout') for split, found in documents.items() for d in found)
  originals = sum('#' not in d.id for d in documents['train'])
  assert 0.1 < len(documents['heldout']) / (len(documents['heldout']) + originals) < 0.3
  assert not any('#' in d.id for d in documents['heldout']) and any('#noise0' in d.id for d in documents['train'])
  ids = [d.id for found in documents.values() for d in found]
  assert len(set(ids)) == len(ids)
  assert {d.source for found in documents.values() for d in found} == {'messy', 'speeches'}


def test_the_standard_stages_keep_speeches_as_they_are(tmp_path, sample):
  corpus = Corpus(name='speeches', sources=(TextFiles(f'{sample}/*.txt'),))
  folder = Store(tmp_path).make(corpus)
  kept = {d.id: d.text for split in ('train', 'heldout') for d in corpus.documents(folder, split)}
  assert kept == {path.name: path.read_bytes().decode() for path in sample.glob('*.txt')}
  assert [d.id for d in corpus.documents(folder, 'heldout')] == ['1796-Washington-1.txt', '1809-Madison-1.txt']
  table = json.loads((folder / 'table.json').read_text())
  assert not table['rows'] and table['stages'] == [stage.name for stage in ENGLISH]


def test_making_it_again_changes_nothing_and_a_cut_off_try_is_made_whole(tmp_path, sample):
  corpus = Corpus(name='speeches', sources=(TextFiles(f'{sample}/*.txt'),), stages=(Unicode(),))
  store = Store(tmp_path)
  folder = store.make(corpus)
  before = bytes_in(folder)
  times = {path: path.stat().st_mtime_ns for path in folder.rglob('*.jsonl')}
  corpus.make(folder, store)
  assert bytes_in(folder) == before and times == {path: path.stat().st_mtime_ns for path in folder.rglob('*.jsonl')}
  for cut_off in ('manifest.json', 'documents/train-00000.jsonl'):
    (folder / cut_off).unlink()
    (folder / 'documents.part').mkdir()
    (folder / 'documents.part' / 'train-00000.jsonl').write_text('half a li')
    corpus.make(folder, store)
    assert bytes_in(folder) == before


def test_a_corpus_is_a_value_that_can_be_written_down(mixed):
  assert decode(json.loads(json.dumps(encode(Corpus(name='c', sources=mixed.sources, stages=ENGLISH))))) == Corpus(
    name='c', sources=mixed.sources)


def test_changed_documents_are_told(tmp_path, sample):
  corpus = Corpus(name='speeches', sources=(TextFiles(f'{sample}/*.txt'),), stages=(Unicode(),))
  folder = Store(tmp_path).make(corpus)
  shard = folder / 'documents' / manifest(folder)['shards'][0]['file']
  whole = shard.read_bytes()
  for damage, why in ((whole[:-1], 'bytes'), (whole.replace(b'Madison', b'Modison').replace(b'peace', b'piece'), 'sha256'),
                      (whole.replace(b'"text"', b'"tex!"'), 'no document')):
    shard.write_bytes(damage)
    with pytest.raises(DataError, match=why):
      list(corpus.documents(folder, 'heldout'))


def test_changed_sources_are_told(tmp_path):
  for name in 'abc':
    (tmp_path / f'{name}.txt').write_text(f'text {name}')
  corpus = Corpus(name='c', sources=(TextFiles(f'{tmp_path}/*.txt'),), stages=(Unicode(),), heldout_modulo=1000)
  folder = Store(tmp_path / 'runs').make(corpus)
  assert corpus.changed_sources(folder) == []
  os.utime(tmp_path / 'a.txt', (1, 1))
  assert corpus.changed_sources(folder) == [], 'touched only'
  (tmp_path / 'a.txt').write_text('text A')
  (tmp_path / 'b.txt').unlink()
  assert corpus.changed_sources(folder) == [f'{tmp_path}/a.txt', f'{tmp_path}/b.txt']


def test_files_that_repeat_another_are_told(tmp_path):
  for name in 'abcd':
    (tmp_path / f'{name}.txt').write_text('d' if name == 'd' else 'the same')
  corpus = Corpus(name='c', sources=(TextFiles(f'{tmp_path}/*.txt'),), stages=(Unicode(),), heldout_modulo=1000)
  warnings = json.loads((Store(tmp_path / 'runs').make(corpus) / 'table.json').read_text())['warnings']
  assert warnings[0] == f'2 files repeat another byte for byte: {tmp_path}/b.txt is {tmp_path}/a.txt'
  assert warnings[1].startswith('no document is held out')


def test_a_file_that_two_sources_read_is_no_twin(tmp_path):
  file = str(tmp_path / 'a.txt')
  assert twins([{'file': file, 'sha256': '1'}, {'file': file, 'sha256': '1'}]) == []


def test_a_stage_that_breaks_names_itself_and_the_document(tmp_path):
  documents = [Document(f'text {i}', 'test', str(i)) for i in range(3000)]
  with Pass((Unicode(), Bomb('2999')), 2, Store(tmp_path)) as work, pytest.raises(DataError) as caught:
    list(work.run(documents))
  assert caught.value.id == 'data.stage-failed' and "Bomb on document '2999'" in str(caught.value)


def test_a_worker_that_dies_ends_the_pass(tmp_path):
  documents = (Document(f'text {i}', 'test', str(i)) for i in range(3000))
  with Pass((Bomb('1500', kill=True),), 2, Store(tmp_path)) as work, pytest.raises(PeerError, match='fewer workers'):
    list(work.run(documents))


def test_segments_and_chunks():
  stages = (Unicode(), ExactDuplicates(), NearDuplicates(), Pii(), Even(), Lower())
  shape = [([place for place, _ in each.local], each.closing and each.closing[0]) for each in segments(stages)]
  assert shape == [([0], 1), ([], 2), ([3], 4), ([5], None)]
  assert segments(()) == ()
  documents = [Document('x' * length, '', '') for length in (1, 5, 1, 1, 1, 1)]
  assert [len(chunk) for chunk in chunks(documents, 3, 5)] == [2, 3, 1]
