"""Cases 13 to 21 of the catalogue of bad input, as one table: what is wrong with a file, and what the one message says."""

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import UserError
from train.artifact import Store
from train.data.augment import Noise
from train.data.clean import SplitLong, Unicode
from train.data.corpus import ENGLISH, Corpus
from train.data.document import Document
from train.data.quality import C4, Gopher
from train.data.readers import JsonLines, Reader, TextFiles
from train.data.readers_parquet import Parquet
from train.data.readers_warc import Warc
from train.data.stage import InOrder

GOOD = b'{"text": "a fine text"}\n'
RECORD = (b'WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nContent-Length: 2000\r\n\r\n' + b'word ' * 400
          + b'\r\n\r\n')


def text(data: bytes) -> Callable[[Path], Reader]:
  return lambda folder: _written(folder / 'a.txt', data, TextFiles)


def jsonl(*lines: bytes) -> Callable[[Path], Reader]:
  return lambda folder: _written(folder / 'a.jsonl', GOOD + b'\n'.join(lines), JsonLines)


def packed(data: bytes) -> Callable[[Path], Reader]:
  return lambda folder: _written(folder / 'a.jsonl.gz', data, JsonLines)


def warc(data: bytes) -> Callable[[Path], Reader]:
  return lambda folder: _written(folder / 'a.warc.gz', data, Warc)


def parquet(columns: dict, cut: int | None = None, **fields) -> Callable[[Path], Reader]:
  def write(folder: Path) -> Reader:
    pq.write_table(pa.table(columns), folder / 'a.parquet')
    return _written(folder / 'a.parquet', (folder / 'a.parquet').read_bytes()[:cut], Parquet, **fields)
  return write


def _written(path: Path, data: bytes, reader: type[Reader], **fields) -> Reader:
  path.write_bytes(data)
  return reader(str(path), **fields)


ZIPPED = gzip.compress(GOOD * 5000, mtime=0)
FLIPPED = ZIPPED[:-6] + bytes([ZIPPED[-6] ^ 1]) + ZIPPED[-5:]
ARCHIVE = gzip.compress(RECORD, mtime=0)

CASES = [
  (13, 'a file that is not there', lambda folder: TextFiles(f'{folder}/no.txt'), 'data.missing-file', 'no.txt'),
  (13, 'a pattern that nothing matches', lambda folder: JsonLines(f'{folder}/*.jsonl'), 'data.missing-file', 'exists'),
  (13, 'a folder that is not there', lambda folder: Warc(f'{folder}/x/*.gz'), 'data.missing-file', 'x does not exist'),
  (13, 'a folder for a file', lambda folder: TextFiles(str(folder)), 'data.missing-file', 'it names a folder'),
  (14, 'an empty text', text(b''), 'data.empty-file', 'a.txt'),
  (14, 'a text of white space', text(b' \n\n'), 'data.empty-file', 'a.txt'),
  (14, 'an empty JSONL', lambda folder: _written(folder / 'a.jsonl', b'\n', JsonLines), 'data.empty-file', 'no record'),
  (14, 'an empty archive', warc(b''), 'data.empty-file', 'no record'),
  (14, 'a table without rows', parquet({'text': pa.array([], pa.string())}), 'data.empty-file', 'no row'),
  (15, 'broken JSON', jsonl(b'{"text": "x",}'), 'data.bad-json', 'a.jsonl:2:14'),
  (15, 'half a line', jsonl(GOOD[:-1], GOOD[:9]), 'data.bad-json', 'a.jsonl:3:'),
  (15, 'JSON that is no object', jsonl(b'["text"]'), 'data.bad-json', 'a.jsonl:2'),
  (15, 'JSON nested without end', jsonl(b'[' * 200_000), 'data.bad-json', 'a.jsonl:2'),
  (15, 'a number of a million digits', jsonl(b'{"n": ' + b'9' * 1_000_000 + b'}'), 'data.bad-json', 'a.jsonl:2'),
  (16, 'another field', jsonl(b'{"body": "x", "id": 1}'), 'data.no-such-field', "'body', 'id'"),
  (16, 'null', jsonl(b'{"text": null}'), 'data.no-text', 'null'),
  (16, 'a number for a text', jsonl(b'{"text": 7}'), 'data.no-text', 'int'),
  (16, 'another column', parquet({'body': ['x']}), 'data.no-such-field', "'body'"),
  (16, 'null in a row', parquet({'text': ['x', None]}), 'data.no-text', 'a.parquet: row 2'),
  (16, 'a column of numbers', parquet({'text': [1, 2]}), 'data.no-text', 'row 1'),
  (17, 'bytes that are no UTF-8', text(b'first\nsec\xffond'), 'data.not-utf8', 'a.txt: line 2, byte 4'),
  (17, 'Latin-1 in a line of JSON', jsonl('{"text": "é"}'.encode('latin-1')), 'data.not-utf8', 'a.jsonl:2: byte 11'),
  (17, 'UTF-16', text('text'.encode('utf-16')), 'data.not-utf8', 'UTF-16'),
  (17, 'UTF-32', text('text'.encode('utf-32')), 'data.not-utf8', 'UTF-32'),
  (17, 'half a surrogate pair', jsonl(b'{"text": "ab\\ud800c"}'), 'data.lone-surrogate', 'a.jsonl:2: character 3'),
  (19, 'gzip cut off', packed(ZIPPED[:-30]), 'data.damaged-file', 'after line'),
  (19, 'gzip with a wrong checksum', packed(FLIPPED), 'data.damaged-file', 'after line 5000'),
  (19, 'gzip of something else', packed(b'\x1f\x8bnot gzip'), 'data.damaged-file', 'after line 0'),
  (19, 'an archive cut off', warc(ARCHIVE + ARCHIVE[:-20]), 'data.damaged-file', 'record 2'),
  (19, 'an archive that is none', warc(b'hello world\n'), 'data.damaged-file', 'after record 0'),
  (19, 'a table cut off', parquet({'text': ['x']}, cut=-8), 'data.damaged-file', 'a.parquet'),
]


@pytest.mark.parametrize('case', CASES, ids=[f'{number}-{what}'.replace(' ', '-') for number, what, *_ in CASES])
def test_one_message_says_what_why_and_what_to_do(case, tmp_path):
  _, _, write, id, word = case
  corpus = Corpus(name='c', sources=(write(tmp_path),), stages=(Unicode(),))
  with pytest.raises(UserError) as caught:
    Store(tmp_path / 'runs').make(corpus)
  error = caught.value
  assert error.id == id and word in f'{error.what} {error.why}' and error.exit_code == 65
  assert all(part and '\n' not in part for part in (error.what, error.why, error.do))
  assert not list((tmp_path / 'runs').rglob('made.json'))


def test_nul_and_byte_order_marks_are_removed_and_counted(tmp_path):       # case 17
  (tmp_path / 'a.txt').write_bytes('\ufeffa\0b\ufeffc'.encode())
  corpus = Corpus(name='c', sources=(TextFiles(f'{tmp_path}/a.txt'),), stages=(Unicode(),), heldout_modulo=1000)
  folder = Store(tmp_path / 'runs').make(corpus)
  assert [d.text for d in corpus.documents(folder, 'train')] == ['abc']
  [row] = json.loads((folder / 'table.json').read_text())['rows']
  assert (row['reason'], row['places'], row['documents']) == ('control characters', 2, 1)


@pytest.mark.parametrize('piece', ['never ending story ', 'x', 'line\n', 'a. b! '])
def test_a_very_long_document_takes_linear_time(piece):       # case 18, at a fiftieth of its size
  document, start = Document(piece * (2_000_000 // len(piece)), 'test', 'id'), time.monotonic()
  for stage in (*ENGLISH, C4(), Noise()):
    stage.sign(document) if isinstance(stage, InOrder) else stage.open()(document)
  assert time.monotonic() - start < 60      # a quadratic one takes hours


def test_a_very_long_document_is_cut_in_whole_pieces(tmp_path):
  (tmp_path / 'a.jsonl').write_bytes(b'{"text": "' + b'never ending ' * 400_000 + b'"}')
  corpus = Corpus(name='c', sources=(JsonLines(f'{tmp_path}/a.jsonl'),), stages=(SplitLong(1_000_000),),
                  heldout_modulo=1000)
  folder = Store(tmp_path / 'runs').make(corpus)
  pieces = list(corpus.documents(folder, 'train'))
  assert [d.id for d in pieces] == [f'a.jsonl:1/{i}' for i in range(6)]
  assert ''.join(d.text for d in pieces) == 'never ending ' * 400_000


def test_when_nothing_is_left_the_stages_that_took_it_are_named(tmp_path):
  (tmp_path / 'a.txt').write_text('too short')
  with pytest.raises(UserError, match='Gopher dropped 1: gopher: too few words'):
    Store(tmp_path / 'runs').make(Corpus(name='c', sources=(TextFiles(f'{tmp_path}/*.txt'),), stages=(Gopher(),)))


@pytest.mark.parametrize('fields', [{'sources': ()}, {'heldout_modulo': 1}, {'workers': 0}])
def test_settings_out_of_range(fields):
  with pytest.raises(UserError) as caught:
    Corpus(**({'name': 'c', 'sources': (TextFiles('x'),)} | fields))
  assert caught.value.exit_code == 78
