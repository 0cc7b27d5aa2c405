"""The tokenizer of a corpus: learnt from its training documents only, described, and refused when damaged."""

import json

import pytest

from model.errors import ConfigError, DataError
from model.tokenizer import SentencePiece
from tests.data.fake_corpus import FakeCorpus, texts
from train.artifact import Store
from train.data.vocabulary import MODEL, REPORT, Vocabulary


def vocabulary(**fields) -> Vocabulary:
  corpus = FakeCorpus(name='fake', train=texts(30), heldout=texts(5, 1))
  return Vocabulary(**(dict(name='vocabulary', corpus=corpus, size=340) | fields))


def report(store, value) -> dict:
  return json.loads((store.find(value) / REPORT).read_text())


def test_the_report_counts_what_is_there(tmp_path):
  store, value = Store(tmp_path), vocabulary()
  store.make(value)
  found, tokenizer = report(store, value), value.load(store)
  train = value.corpus.train
  assert found['splits']['train'] == {
    'documents': 30, 'bytes': sum(len(text.encode()) for text in train),
    'tokens': sum(len(tokenizer.encode(text)) for text in train),
    'bytes_per_token': pytest.approx(sum(len(text.encode()) for text in train)
                                     / sum(len(tokenizer.encode(text)) for text in train), abs=1e-4)}
  assert set(found['sources']) == {'even', 'odd'} and found['sources']['odd']['heldout']['documents'] == 2
  for field in ('documents', 'bytes', 'tokens'):
    assert sum(each['train'][field] for each in found['sources'].values()) == found['splits']['train'][field]
  assert found['failures'] == [] and found['size'] == tokenizer.size == 340
  assert 0 < found['byte_share'] < 1 and len(found['longest'][0]['piece']) >= len(found['longest'][1]['piece'])


def test_held_out_text_is_not_learnt(tmp_path):
  store = Store(tmp_path)
  plain = vocabulary()
  other = vocabulary(corpus=FakeCorpus(name='fake', train=texts(30), heldout=('quetzalcoatl ' * 900,)))
  assert (store.make(plain) / MODEL).read_bytes() == (store.make(other) / MODEL).read_bytes()
  seen = vocabulary(corpus=FakeCorpus(name='fake', train=(*texts(30), 'quetzalcoatl ' * 900)))
  assert (store.make(plain) / MODEL).read_bytes() != (store.make(seen) / MODEL).read_bytes()


def test_making_it_twice_gives_the_same_bytes(tmp_path):
  folders = [Store(tmp_path / name).make(vocabulary()) for name in 'ab']
  for name in (MODEL, REPORT):
    assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_share_of_the_documents_is_drawn_by_their_names(tmp_path):
  store = Store(tmp_path)
  half = vocabulary(share=0.5)
  store.make(half)
  assert 5 < report(store, half)['splits']['train']['documents'] < 25


@pytest.mark.parametrize('damage', [lambda data: data[:-1], lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
                                    lambda data: b''])
def test_a_damaged_file_is_refused(tmp_path, damage):
  store, value = Store(tmp_path), vocabulary()
  store.make(value)
  path = store.find(value) / MODEL
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(DataError, match=report(store, value)['sha256']) as caught:
    value.load(store)
  assert caught.value.id == 'tokenizer.damaged' and str(path) in caught.value.what


def test_text_that_does_not_survive_is_counted_and_refused(tmp_path, monkeypatch):
  wrong = SentencePiece.decode
  monkeypatch.setattr(SentencePiece, 'decode', lambda self, ids: wrong(self, ids).replace('1790', '1791'))
  store, value = Store(tmp_path), vocabulary()
  with pytest.raises(DataError, match=r'tokenizer\.not-lossless.*documents, first odd:train-1'):
    store.make(value)
  failures = json.loads((store.folder(value) / REPORT).read_text())['failures']
  assert len(failures) == sum('1790' in text for text in value.corpus.train + value.corpus.heldout) > 0
  assert not store.made(value)


@pytest.mark.parametrize('fields', [dict(coverage=0.0), dict(coverage=1.5), dict(share=0.0), dict(share=-1.0)])
def test_settings_that_cannot_be(fields):
  with pytest.raises(ConfigError, match='vocabulary'):
    vocabulary(**fields)
