"""A file in the hands of the wrong reader: the answer says what it looks like and which reader takes it."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import DataError
from train.data.readers import JsonLines, TextFiles
from train.data.readers_csv import CsvFiles
from train.data.readers_parquet import Parquet

LINES = '\n'.join(json.dumps({'text': f'line {number}, of ten', 'n': number}) for number in range(10)) + '\n'
TABLE = 'text,label\n"one, two",a\nthree,b\n'
PROSE = 'The people of the States,\nin order to form a more perfect union\n'


def parquet() -> bytes:
  sink = pa.BufferOutputStream()
  pq.write_table(pa.table({'text': ['one', 'two']}), sink)
  return sink.getvalue().to_pybytes()


CASES = [        # reader, the file's name, its bytes, words of the message
  (JsonLines, 'a.csv', TABLE, 'looks like CSV CsvFiles'),
  (JsonLines, 'a.csv.gz', gzip.compress(TABLE.encode()), 'looks like CSV CsvFiles'),
  (JsonLines, 'a.txt', TABLE, 'looks like CSV CsvFiles'),
  (JsonLines, 'a.txt', PROSE, 'plain text TextFiles'),
  (JsonLines, 'a.json', json.dumps([{'text': 'one'}, {'text': 'two'}]), 'JSON over many lines jq -c'),
  (JsonLines, 'a.json', json.dumps({'text': 'one'}, indent=1), 'JSON over many lines jq -c'),
  (JsonLines, 'a.parquet', parquet(), 'looks like Parquet readers_parquet'),
  (JsonLines, 'a.jsonl.zst', b'\x28\xb5\x2f\xfd\0\1\2\3', 'zstd unpack it'),
  (TextFiles, 'a.jsonl', LINES, 'looks like JSON lines JsonLines'),
  (TextFiles, 'a.jsonl.gz', gzip.compress(LINES.encode()), 'looks like JSON lines JsonLines'),
  (TextFiles, 'a.csv', TABLE, 'looks like CSV CsvFiles'),
  (TextFiles, 'a.parquet', parquet(), 'looks like Parquet readers_parquet'),
  (TextFiles, 'a.docx', b'PK\x03\x04 and more', 'zip archive .docx'),
  (TextFiles, 'a.pdf', b'%PDF-1.7\n', 'PDF pdftotext'),
  (TextFiles, 'a.txt', PROSE.encode('utf-16-le'), 'UTF-16 iconv -f UTF-16LE'),
  (CsvFiles, 'a.csv', parquet(), 'looks like Parquet'),
  (CsvFiles, 'a.jsonl', LINES, 'looks like JSON lines JsonLines'),
  (CsvFiles, 'a.txt', LINES, 'looks like JSON lines JsonLines'),
  (CsvFiles, 'a.csv', 'label\ttext\na\tb\n', '.tsv'),
  (CsvFiles, 'a.csv', 'label;text\na;b\n', "';' commas"),
  (Parquet, 'a.parquet', TABLE, 'looks like CSV CsvFiles'),
  (Parquet, 'a.parquet', LINES, 'looks like JSON lines JsonLines'),
  (Parquet, 'a.parquet.gz', gzip.compress(parquet()), 'gzip unpack it'),
]


@pytest.mark.parametrize('kind, name, data, words', CASES, ids=[f'{kind.__name__}-{name}' for kind, name, *_ in CASES])
def test_the_answer_names_the_reader_that_takes_it(tmp_path, kind, name, data, words):
  (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
  with pytest.raises(DataError) as caught:
    list(kind(str(tmp_path / name)).read())
  assert not [word for word in words.split() if word not in str(caught.value)], str(caught.value)
  assert name in caught.value.what


@pytest.mark.parametrize('kind', [TextFiles, JsonLines, CsvFiles])
@pytest.mark.parametrize('code', ['utf-16', 'utf-32'])
def test_a_mark_of_utf_16_is_told_whatever_the_form(tmp_path, kind, code):
  text = {TextFiles: PROSE, JsonLines: LINES, CsvFiles: TABLE}[kind]
  (tmp_path / 'a.txt').write_bytes(text.encode(code))
  with pytest.raises(DataError, match=f'{code.upper()}, not UTF-8') as caught:
    list(kind(f'{tmp_path}/a.txt').read())
  assert caught.value.id == 'data.not-utf8'


@pytest.mark.parametrize('kind, data, id', [
  (JsonLines, '{"text": \n' + LINES, 'data.bad-json'), (JsonLines, '{"body": "x"}\n', 'data.no-such-field'),
  (CsvFiles, 'body,n\na,1\n', 'data.no-such-field'), (Parquet, parquet()[:-9].decode('latin1'), 'data.damaged-file')])
def test_a_broken_record_of_the_right_form_keeps_its_own_message(tmp_path, kind, data, id):
  (tmp_path / 'a.x').write_bytes(data.encode('latin1'))
  with pytest.raises(DataError) as caught:
    list(kind(f'{tmp_path}/a.x').read())
  assert caught.value.id == id


def test_text_that_only_looks_like_a_table_or_code_is_text(tmp_path):
  for name, text in (('a.txt', 'so, then\nand, now\n'), ('b.py', '{"a": 1}\n'), ('c.json', '[1, 2]')):
    (tmp_path / name).write_text(text)
    assert [each.text for each in TextFiles(f'{tmp_path}/{name}').read()] == [text]


def test_a_file_of_another_form_counts_as_one_broken_record(tmp_path):
  (tmp_path / 'a.csv').write_text(TABLE)
  (tmp_path / 'b.jsonl').write_text(LINES)
  told = []
  assert len(list(JsonLines(f'{tmp_path}/*', tolerate=1).read(told.append))) == 10
  assert [error.id for error in told] == ['data.other-form']
