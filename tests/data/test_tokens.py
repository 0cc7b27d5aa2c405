"""Tokens on disk are the documents, nothing else, and a changed file is noticed."""

import json

import numpy as np
import pytest

from model.errors import DataError
from tests.data.fake_corpus import FakeCorpus, made
from train.artifact import Store
from train.data.encoding import Encoded
from train.data.fim import Fim
from train.data.token_files import MANIFEST, open_split, write_split
from train.data.tokens import Tokens
from train.data.vocabulary import Vocabulary


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  return made(tmp_path_factory.mktemp('runs'))


def test_each_document_is_bos_text_eos(shared):
  tokens, store = shared
  tokenizer = tokens.vocabulary.load(store)
  for split, texts in (('train', tokens.corpus.train), ('heldout', tokens.corpus.heldout)):
    opened = tokens.open(store, split)
    assert opened.ids.dtype == np.uint16 and isinstance(opened.ids, np.memmap)
    for index, (begin, end) in enumerate(zip(opened.offsets, opened.offsets[1:], strict=False)):
      first, *ids, last = opened.ids[begin:end].tolist()
      assert (first, last) == (tokenizer.bos, tokenizer.eos)
      assert tokenizer.decode(ids) == texts[index]
      assert opened.describe(index) == f'{"odd" if index % 2 else "even"}:{split}-{index}'
    assert len(opened.offsets) == len(texts) + 1 and opened.offsets[-1] == len(opened.ids)
    assert opened.manifest['splits'][split]['bytes'] == sum(len(text.encode()) for text in texts)


def test_sources_are_found_by_name(shared):
  tokens, store = shared
  opened = tokens.open(store, 'train')
  assert opened.documents('odd').tolist() == list(range(1, 40, 2))
  assert opened.documents().tolist() == list(range(40))
  with pytest.raises(DataError, match=r"'prime'.*\n.*even, odd") as caught:
    opened.documents('prime')
  assert caught.value.id == 'mixture.unknown-source'


def test_several_workers_write_the_same(shared, tmp_path, monkeypatch):
  tokens, store = shared
  monkeypatch.setattr('train.data.tokens.CHUNK_BYTES', 1000)
  again, other = made(tmp_path, workers=2)
  assert again.open(other, 'train').sha256 == tokens.open(store, 'train').sha256


@pytest.mark.parametrize('file, id', [
  ('train.npy', 'data.changed'), ('train.offsets.npy', 'data.changed'), ('train.sources.npy', 'data.changed'),
  ('bytes_of.npy', 'data.changed'), (MANIFEST, 'data.damaged')])
def test_a_changed_file_is_refused(tmp_path, file, id):
  tokens, store = made(tmp_path, count=6, heldout=1)
  tokens.open(store, 'train')
  path = store.find(tokens) / file
  data = bytearray(path.read_bytes())
  data[-3] ^= 1
  path.write_bytes(data if id == 'data.changed' else data[:-4])
  with pytest.raises(DataError) as caught:
    tokens.open(store, 'train')
  assert caught.value.id == id and str(store.find(tokens)) in caught.value.what


@pytest.mark.parametrize('file', ['train.npy', 'train.offsets.npy', MANIFEST])
def test_a_missing_or_cut_file_is_refused(tmp_path, file):
  tokens, store = made(tmp_path, count=6, heldout=1)
  path = store.find(tokens) / file
  path.write_bytes(path.read_bytes()[:40])
  with pytest.raises(DataError, match='damaged'):
    tokens.open(store, 'train')
  path.unlink()
  with pytest.raises(DataError, match='damaged'):
    tokens.open(store, 'train')


def test_an_id_that_no_tokenizer_has_is_named_when_written(tmp_path):
  documents = [Encoded('a', 'one', np.array([1, 2])), Encoded('a', 'two', np.array([1, 7, 9]))]
  with pytest.raises(DataError, match=r'document 1 \(a:two\): token 2 is 9') as caught:
    write_split(tmp_path, 'train', documents, np.ones(9, np.int32), [])
  assert caught.value.id == 'data.token-out-of-range'


def test_an_id_that_no_tokenizer_has_is_named_when_read(tmp_path):
  """Tokens prepared elsewhere may have a right sum and wrong ids: the vocabulary shrinks under them here."""
  documents = [Encoded('a', 'one', np.array([1, 2])), Encoded('a', 'two', np.array([1, 8, 2]))]
  write_split(tmp_path, 'train', documents, np.ones(9, np.int32), [])
  small = np.ones(8, np.int32)
  np.save(tmp_path / 'bytes_of.npy', small)
  arrays = [np.load(tmp_path / f'train{name}.npy') for name in ('', '.offsets', '.sources')]
  from train.data.token_files import _sha256
  (tmp_path / MANIFEST).write_text(json.dumps({'splits': {'train': {'sha256': _sha256(*arrays, small)}}}))
  with pytest.raises(DataError, match='document 1: token 1 is 8'):
    open_split(tmp_path, 'train')


def test_large_vocabularies_take_four_bytes(tmp_path):
  made_of = write_split(tmp_path, 'train', [Encoded('a', 'b', np.array([1, 65536, 2]))], np.ones(65537, np.int32), [])
  assert np.load(tmp_path / 'train.npy').tolist() == [1, 65536, 2] and made_of['tokens'] == 3
  assert np.load(tmp_path / 'train.npy').dtype == np.uint32


def test_no_training_document_is_an_error(tmp_path, shared):
  corpus = FakeCorpus(name='fake', train=(), heldout=('a',))
  vocabulary = shared[0].vocabulary
  store = Store(tmp_path)
  with pytest.raises(DataError, match=r'data\.no-text'):
    store.make(Tokens(name='tokens', corpus=corpus, vocabulary=Vocabulary(name='v', corpus=corpus, size=300)))
  with pytest.raises(DataError, match=r'data\.empty'):
    store.make(Tokens(name='tokens', corpus=corpus, vocabulary=vocabulary))


def test_gaps_are_made_in_training_documents_only(tmp_path, shared):
  tokens, store = made(tmp_path, fim=Fim(rate=1.0))
  opened, plain = tokens.open(store, 'train'), shared[0].open(shared[1], 'train')
  assert (opened.ids == opened.manifest['controls']['<|fim_middle|>']).sum() == 40
  assert opened.manifest['splits']['train']['bytes'] == plain.manifest['splits']['train']['bytes']
  assert opened.sha256 != plain.sha256
  assert opened.manifest['splits']['heldout'] == plain.manifest['splits']['heldout']
