"""Tables with a header: what is read, and what is refused by file and line."""

import gzip

import pytest

from model.errors import DataError
from train.data.readers_csv import CsvFiles


@pytest.fixture
def table(tmp_path):
  def put(data: str, name: str = 'a.csv', **fields) -> CsvFiles:
    (tmp_path / name).write_bytes(gzip.compress(data.encode()) if name.endswith('.gz') else data.encode())
    return CsvFiles(str(tmp_path / name), **fields)

  return put


def found(reader):
  return [(each.text, each.id, each.meta) for each in reader.read()]


def test_rows_become_documents(table):
  text = 'label,text\r\nham,"so, ""fine""\nit is"\r\n\r\nspam,money\r\n'
  expected = [('so, "fine"\nit is', 'a.csv:3', {'label': 'ham'}), ('money', 'a.csv:5', {'label': 'spam'})]
  assert found(table('\N{ZERO WIDTH NO-BREAK SPACE}' + text, meta=('label',))) == expected
  assert [each[::2] for each in found(table(text, 'a.csv.gz', meta=('label',)))] == [each[::2] for each in expected]


def test_tabs_other_columns_and_texts_of_any_length(table):
  long = 'x' * 200_000
  assert found(table(f'n\tbody\n7\t{long}\n', 'b.tsv', field='body', id_field='n')) == [(long, '7', {})]


@pytest.mark.parametrize('data, words', [
  ('text,label\na,b\nc\n', 'a.csv:3.*1 columns and the header 2'),
  ('text\n"a\n', 'a.csv:2.*unexpected end'),
  ('text\n"a"b\n', 'a.csv:2.*expected after'),
  ('body\na\n', "a.csv:2.*field 'text'.*'body'"),
  ('text\n', 'no row below its header'), ('', 'no row below its header')])
def test_what_cannot_be_read_is_named(table, data, words):
  with pytest.raises(DataError, match='(?s)' + words):
    found(table(data))


def test_a_row_of_another_length_can_be_left_out(table):
  assert [each[0] for each in found(table('text,label\na,b\nc\nd,e\n', tolerate=1))] == ['a', 'd']
