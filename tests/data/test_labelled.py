"""Texts and words with labels: which token is judged and of what class, rows of whole texts, and what is refused.

Letters: L positions of a row.
"""

import json
from collections import Counter
from dataclasses import replace
from itertools import chain

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import CheckpointError, ConfigError, DataError
from model.sharding import MeshShape
from tests.data.fake_corpus import FakeCorpus, texts
from tests.data.noticed import check_noticed
from tests.model.test_embedding import words as wordpiece
from train.artifact import Store, read_json
from train.data.class_rows import ClassRows, MingledPlan, heldout
from train.data.clean import Unicode
from train.data.corpus import TABLE, Corpus
from train.data.document import Document
from train.data.labelled import LabelledTokens
from train.data.labelling import Texts, WordLines, Words, pieces_of
from train.data.pipeline import Batches
from train.data.readers import JsonLines
from train.data.vocabulary import Vocabulary

CLASSES = ('short', 'long')
LONGEST = 16


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return Store(tmp_path_factory.mktemp('labelled') / 'runs')


@pytest.fixture(scope='module')
def vocabulary():
  return Vocabulary(name='vocabulary', corpus=FakeCorpus(name='fake', train=texts(40)), size=340)


@pytest.fixture(scope='module')
def tokens(tmp_path_factory, vocabulary, store):
  """Sixty labelled texts, cut at 16 tokens, made."""
  path = tmp_path_factory.mktemp('texts') / 'texts.jsonl'
  records = [{'text': f'{i} ' + 'the state ' * (i % 9 + 1), 'label': CLASSES[i % 9 > 4]} for i in range(60)]
  path.write_text('\n'.join(map(json.dumps, records)))
  corpus = Corpus(name='texts', sources=(JsonLines(str(path), meta=('label',)),), stages=(), heldout_modulo=4)
  made = LabelledTokens(name='labelled', corpus=corpus, vocabulary=vocabulary, classes=CLASSES, longest=LONGEST)
  store.make(made)
  return made


def by_text(tokens, store, split):
  """Each text's ids and the class at its first token."""
  opened = tokens.open(store, split)
  return [(opened.ids[begin:end].tolist(), int(opened.classes[begin]))
          for begin, end in zip(opened.offsets, opened.offsets[1:])]


@pytest.mark.parametrize('split', ['train', 'heldout'])
def test_a_text_is_judged_once_and_at_its_beginning(tokens, store, split):
  tokenizer, opened = tokens.vocabulary.load(store), tokens.open(store, split)
  documents = list(tokens.corpus.documents(store.find(tokens.corpus), split))
  assert np.flatnonzero(opened.mask).tolist() == opened.offsets[:-1].tolist() and len(documents) > 8
  for (ids, number), document in zip(by_text(tokens, store, split), documents, strict=True):
    assert ids == [tokenizer.bos, *tokenizer.encode(document.text)[:LONGEST - 2], tokenizer.eos]
    assert CLASSES[number] == document.meta['label']
  said = read_json(store.find(tokens) / TABLE)[split]
  assert said['documents'] == len(documents) and said['documents cut'] > 0
  assert Counter(document.meta['label'] for document in documents) == {label: said[f'of class {label}'] for label in CLASSES}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 20), min_size=1, max_size=60), st.integers(0, 3))
def test_every_epoch_has_each_text_once_whole_and_as_many_rows(lengths, seed):
  plan = MingledPlan(np.array(lengths), 19, seed)
  for epoch in range(3):
    rows = [plan.spans(epoch, row) for row in range(plan.rows)]
    assert sorted(span.document for row in rows for span in row) == list(range(len(lengths)))
    assert all(span.start == 0 and span.stop == lengths[span.document] for row in rows for span in row)
    assert all(sum(span.stop for span in row) <= 20 for row in rows)


def test_company_changes_with_the_epoch_and_the_seed_alone_decides():
  def rows(seed: int, epoch: int) -> str:
    plan = MingledPlan(np.array([7, 5] * 30), 19, seed)
    return str([plan.spans(epoch, row) for row in range(plan.rows)])

  assert len({rows(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}) == 4 and rows(0, 1) == rows(0, 1)


def test_rows_hold_whole_texts_with_their_classes(tokens, store):
  rows = ClassRows(tokens, length=64, seed=3)
  visits, companies = rows.visits(store), []
  known = Counter((tuple(ids), number) for ids, number in by_text(tokens, store, 'train'))
  for epoch in range(2):
    found, company = Counter(), set()
    for row in (visits[epoch * visits.rows + i] for i in range(visits.rows)):
      assert all(row[name].shape == (64,) for name in ('tokens', 'segments', 'targets', 'mask'))
      for segment in range(1, row['segments'].max() + 1):
        here = row['segments'] == segment
        assert row['mask'][here].tolist() == [1] + [0] * (here.sum() - 1)
        found[tuple(row['tokens'][here].tolist()), int(row['targets'][here][0])] += 1
      company.add(row['tokens'].tobytes())
      assert not row['mask'][row['segments'] == 0].any()
    assert found == known
    companies.append(company)
  assert companies[0] != companies[1]
  assert (np.concatenate([visits[i]['segments'] for i in range(visits.rows - 1)]) > 0).mean() > 0.8


def test_batches_lie_on_the_mesh_and_go_on_where_they_stopped(tokens, store):
  rows = ClassRows(tokens, length=32)
  source = rows.source(store, batch=8, mesh=MeshShape().build(jax.devices()))
  assert {name: value.shape for name, value in source().items()} == {
    name: (8, 32) for name in ('tokens', 'segments', 'targets', 'mask')} | {'record': (8,)}
  position, two = source.save(), source()
  source.load(position)
  jax.tree.map(np.testing.assert_array_equal, source(), two)
  source.close()
  assert 'epoch 0 of labelled' in source.describe(0) and 'jsonl:texts.jsonl:' in source.describe(0)
  with pytest.raises(CheckpointError, match='seed was'):
    Batches(replace(rows, seed=1).visits(store), 8).load(position)


def test_held_out_texts_come_once_and_items_count_them(tokens, store):
  split = tokens.open(store, 'heldout')
  rows, known = heldout(split, 32), by_text(tokens, store, 'heldout')
  found = {}
  for row in rows:
    for place in np.flatnonzero(row['mask']):
      here = row['segments'] == row['segments'][place]
      found[int(row['item'][place])] = (row['tokens'][here].tolist(), int(row['targets'][place]))
  assert [found[item] for item in range(len(known))] == known and len(found) == len(known)
  few = heldout(split, 32, 2)
  assert len(few) == 2 and few[0]['tokens'].tolist() == rows[0]['tokens'].tolist()


def test_a_changed_class_is_noticed(tokens, store, tmp_path):
  other = replace(tokens, name='changed')
  folder = store.make(other)
  check_noticed(folder / 'train.classes.npy', lambda: other.open(store, 'train'))


def word_tokens(tmp_path, vocabulary, lines, **fields) -> LabelledTokens:
  (tmp_path / 'words.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  corpus = Corpus(name='words', sources=(WordLines(str(tmp_path / 'words.jsonl')),), stages=(), heldout_modulo=1000)
  return LabelledTokens(name='words', corpus=corpus, vocabulary=vocabulary, classes=('O', 'PER'), labelling=Words(), **fields)


def test_words_are_judged_at_their_first_piece(tmp_path, vocabulary, store):
  lines = [{'words': ['state', 'Unionists', 'naïve!', 'of'], 'labels': ['O', 'PER', 'PER', 'O'], 'id': 7}]
  tokens = word_tokens(tmp_path, vocabulary, lines)
  store.make(tokens)
  tokenizer, opened = vocabulary.load(store), tokens.open(store, 'train')
  text = 'state Unionists naïve! of'
  assert opened.ids.tolist() == [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
  places = np.flatnonzero(opened.mask)
  assert opened.classes[places].tolist() == [0, 1, 1, 0]
  assert [tokenizer.decode(opened.ids[1:place].tolist()) for place in places] == ['', 'state', 'state Unionists',
                                                                                  'state Unionists naïve!']
  assert (np.diff(places) > 1).any()


def test_pieces_of_words_are_those_of_the_text(vocabulary, store):
  for tokenizer in (vocabulary.load(store), wordpiece()):
    for said in (['The', 'quick,', 'brown', 'fox'], ["dog's"], ['(a', 'naïve', 'CAT)', '7']):
      assert [*chain(*pieces_of(said, tokenizer))] == tokenizer.encode(' '.join(said))


def test_a_word_that_does_not_fit_goes_with_its_label(vocabulary, store):
  store.make(vocabulary)
  tokenizer = vocabulary.load(store)
  document = Document(json.dumps({'words': ['of', 'Unionists', 'of'], 'labels': ['O', 'PER', 'O']}), 'words', '1')
  whole = Words()(document, tokenizer, 100)
  assert whole.cut == 0 and len(whole.places) == 3
  short = Words()(document, tokenizer, len(whole.ids) - 2)
  assert short.labels == ['O', 'PER'][:len(short.places)] and short.places == whole.places[:len(short.places)]
  assert short.ids[:-1] == whole.ids[:len(short.ids) - 1] and short.ids[-1] == tokenizer.eos and short.cut > 0


@pytest.mark.parametrize(('record', 'id'), [
  ({'words': ['a'], 'labels': []}, 'classes.no-words'), ({'words': ['a', 'b'], 'labels': ['O']}, 'classes.words'),
  ({'words': 'a', 'labels': ['O']}, 'classes.no-words'), ({'words': [' '], 'labels': ['O']}, 'classes.no-words'),
  ({'labels': ['O']}, 'classes.no-words'), ({'words': ['a'], 'labels': ['LOC']}, 'classes.unknown')])
def test_words_that_are_refused(record, id, tmp_path, vocabulary, store):
  with pytest.raises(DataError, match=r'words\.jsonl:1') as caught:
    Store(tmp_path / 'runs', (store.root,)).make(word_tokens(tmp_path, vocabulary, [record]))
  assert caught.value.id == id


@pytest.mark.parametrize(('changes', 'id'), [
  ({'classes': ('short', 'huge')}, 'classes.unknown'), ({'labelling': Texts('kind')}, 'classes.no-label')])
def test_labels_that_are_refused(tokens, tmp_path, store, changes, id):
  with pytest.raises(DataError, match=r'texts\.jsonl:') as caught:
    Store(tmp_path, (store.root,)).make(replace(tokens, **changes))
  assert caught.value.id == id


@pytest.mark.parametrize(('changes', 'id'), [
  ({'classes': ('a',)}, 'classes.names'), ({'classes': ('a', 'a')}, 'classes.names'), ({'longest': 2}, 'config.out-of-range')])
def test_settings_that_are_refused(tokens, changes, id):
  with pytest.raises(ConfigError) as caught:
    replace(tokens, **changes)
  assert caught.value.id == id


def test_stages_for_prose_do_not_see_words(tokens):
  corpus = replace(tokens.corpus, stages=(Unicode(),))
  with pytest.raises(ConfigError, match='would take for prose'):
    replace(tokens, corpus=corpus, labelling=Words())
  assert replace(tokens, corpus=corpus).labelling == Texts()


def test_rows_shorter_than_texts_are_refused(tokens):
  with pytest.raises(ConfigError, match='is not cut'):
    ClassRows(tokens, length=LONGEST - 1)


def test_nothing_held_out_is_said(tmp_path, vocabulary, store):
  tokens = word_tokens(tmp_path, vocabulary, [{'words': ['of'], 'labels': ['O']}])
  mine = Store(tmp_path / 'runs', (store.root,))
  mine.make(tokens)
  with pytest.raises(DataError, match=r'data\.no-heldout'):
    heldout(tokens.open(mine, 'heldout'), 32)
