"""Tables of labelled texts in a wheel, and a split that is theirs: what is read, and what is refused by file and line."""

import zipfile

import pytest

from model.errors import ConfigError, DataError
from train.artifact import Store, digest
from train.data.augment import Noise
from train.data.corpus import Corpus
from train.data.fetch import Wheel, cache
from train.data.files import sha256_of
from train.data.readers import JsonLines
from train.data.readers_table import WheelTable

HEAD = 'Category\tText\nd\tstring\nclass\t\n'


@pytest.fixture
def table(tmp_path, monkeypatch):
  """A function that puts tables into a wheel of the cache and gives its reader."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))

  def put(train: str, heldout: str | None = None, **fields) -> WheelTable:
    name = Wheel('tables', '1', '').file
    cache().mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(cache() / name, 'w') as archive:
      archive.writestr('a/train.tab', train)
      archive.writestr('a/test.tab', heldout or '')
    wheel = Wheel('tables', '1', sha256_of(cache() / name))
    return WheelTable(wheel, 'a/train.tab', 'a/test.tab' if heldout else None, **fields)

  return put


def test_lines_become_documents(table):
  found = list(table(f'{HEAD}\nearn\tthe year\r\nacq\t "sold" \n', f'{HEAD}earn\tthe end').read())
  assert [(each.text, each.id, each.meta) for each in found] == [
    ('the year', 'train:5', {'label': 'earn', 'split': 'train'}),
    (' "sold" ', 'train:6', {'label': 'acq', 'split': 'train'}), ('the end', 'test:4', {'label': 'earn', 'split': 'heldout'})]


def test_columns_are_known_by_name(table):
  other = 'Text\tid\tkind\ns\ts\td\n\t\tclass\nthe year\t7\tearn\n'
  assert [(each.text, each.meta['label']) for each in table(other, label='kind').read()] == [('the year', 'earn')]
  with pytest.raises(DataError, match=r"column 'Category'.*\n.*'Text', 'id', 'kind'") as caught:
    list(table(other).read())
  assert caught.value.id == 'table.no-such-column'


@pytest.mark.parametrize(('line', 'id'), [('earn', 'table.fields'), ('earn\ta\tb', 'table.fields'), ('earn\t ', 'table.empty'),
                                          ('\tthe year', 'table.empty')])
def test_a_broken_line_is_named_and_may_be_left_out(table, line, id):
  broken = f'{HEAD}acq\tsold\n{line}\n'
  with pytest.raises(DataError, match=r'a/train\.tab:5') as caught:
    list(table(broken).read())
  assert caught.value.id == id
  assert [each.text for each in table(broken, tolerate=1).read()] == ['sold']


def test_a_table_that_is_not_there(table):
  reader = table(HEAD)
  with pytest.raises(DataError, match='the wheel has no such file'):
    list(WheelTable(reader.wheel, 'a/other.tab').read())


def test_a_corpus_keeps_the_split_that_documents_bring(table, tmp_path):
  train, heldout = ([f'{word} {i}' for i in range(count)] for word, count in (('red', 30), ('blue', 20)))
  reader = table(HEAD + '\n'.join(f'a\t{text}' for text in train), HEAD + '\n'.join(f'b\t{text}' for text in heldout))
  store = Store(tmp_path / 'runs')

  def texts(corpus: Corpus, split: str) -> list[str]:
    return [each.text for each in corpus.documents(store.make(corpus), split)]

  given = Corpus(name='given', sources=(reader,), stages=(), heldout_as='split')
  assert texts(given, 'train') == train and texts(given, 'heldout') == heldout
  hashed = Corpus(name='hashed', sources=(reader,), stages=(), heldout_modulo=2)
  assert {text.split()[0] for text in texts(hashed, 'heldout')} == {'red', 'blue'}


def test_a_document_must_say_on_which_side_it_is(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{"text": "one", "split": "train"}\n{"text": "two", "split": "test"}\n')
  reader = JsonLines(f'{tmp_path}/a.jsonl', meta=('split',))
  corpus = Corpus(name='c', sources=(reader,), stages=(), heldout_as='split', workers=1)
  with pytest.raises(DataError, match=r"a\.jsonl:2: meta 'split' is 'test'") as caught:
    Store(tmp_path / 'runs').make(corpus)
  assert caught.value.id == 'data.no-split'


def test_two_laws_of_one_split_are_refused_and_digests_stay():
  sources = (JsonLines('a.jsonl'),)
  for fields in ({'heldout_by': 'film'}, {'augment': (Noise(),)}):
    with pytest.raises(ConfigError, match='heldout-as'):
      Corpus(name='c', sources=sources, heldout_as='split', **fields)
  assert digest(Corpus(name='c', sources=sources)) == digest(Corpus(name='c', sources=sources, heldout_as=None))
  assert digest(Corpus(name='c', sources=sources)) != digest(Corpus(name='c', sources=sources, heldout_as='split'))
