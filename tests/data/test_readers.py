"""Readers: what they give, in which order, under which names, and what they leave out when they are told to."""

import gzip
import json
import time
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from model.errors import DataError
from train.data.document import Document, held_out
from train.data.readers import JsonLines, TextFiles
from train.data.readers_parquet import Parquet
from train.data.readers_warc import Warc
from train.data.webtext import html_text


def texts(reader) -> list[str]:
  return [document.text for document in reader.read()]


def test_text_files_in_order_under_names_that_do_not_depend_on_the_machine(tmp_path):
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'z.txt').write_text('last')
  (tmp_path / 'c.txt').write_bytes('\ufeffcafé'.encode())
  (tmp_path / 'a.txt').write_bytes(gzip.compress(b'first\r\nline'))
  documents = list(TextFiles(f'{tmp_path}/**/*.txt', source='books').read())
  assert documents == [Document('first\r\nline', 'books', 'a.txt'), Document('last', 'books', 'b/z.txt'),
                       Document('café', 'books', 'c.txt')]


def test_the_sample_is_eleven_messages_and_two_of_them_are_held_out(sample):
  documents = list(TextFiles(f'{sample}/*.txt').read())
  assert len(documents) == 11
  assert [d.id for d in documents if held_out(d.text, 20)] == ['1796-Washington-1.txt', '1809-Madison-1.txt']


@pytest.mark.parametrize('pack', [lambda data: data, gzip.compress], ids=['plain', 'gzip'])
def test_json_lines(tmp_path, pack):
  lines = [json.dumps({'content': 'one', 'key': 7, 'lang': 'en'}), '', json.dumps({'content': 'zwei ü\u2028x', 'lang': 'de'})]
  (tmp_path / 'a.jsonl').write_bytes(pack('\r\n'.join(lines).encode()))
  documents = list(JsonLines(f'{tmp_path}/*.jsonl', 'content', id_field='key', meta=('lang',)).read())
  assert documents == [Document('one', 'jsonl', '7', {'lang': 'en'}),
                       Document('zwei ü\u2028x', 'jsonl', 'a.jsonl:3', {'lang': 'de'})]


def test_broken_records_are_left_out_up_to_a_number_and_told(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{"text": "1"}\n{"text": \n{"text": null}\n{"text": "4"}\n')
  told = []
  reader = JsonLines(f'{tmp_path}/a.jsonl', tolerate=2)
  assert [d.text for d in reader.read(told.append)] == ['1', '4']
  assert [error.id for error in told] == ['data.bad-json', 'data.no-text']
  with pytest.raises(DataError, match=r'(?s)a\.jsonl:3.*broken record 2, one more than is tolerated') as caught:
    texts(JsonLines(f'{tmp_path}/a.jsonl', tolerate=1))
  assert caught.value.id == 'data.no-text'


def test_a_damaged_file_counts_as_one_record_and_the_next_file_is_read(tmp_path):
  whole = gzip.compress(b''.join(b'{"text": "%d"}\n' % i for i in range(1000)), mtime=0)
  (tmp_path / 'a.jsonl').write_bytes(whole[:-20])
  (tmp_path / 'b.jsonl').write_text('{"text": "next"}')
  found = texts(JsonLines(f'{tmp_path}/*.jsonl', tolerate=1))
  assert found[0] == '0' and found[-1] == 'next'
  with pytest.raises(DataError, match=r'a\.jsonl: after line \d+'):
    texts(JsonLines(f'{tmp_path}/*.jsonl'))


def test_parquet(tmp_path):
  pq.write_table(pa.table({'body': ['eins', 'zwei', None, 'vier'], 'n': [1, 2, 3, None]}), tmp_path / 'a.parquet')
  documents = list(Parquet(f'{tmp_path}/*.parquet', 'body', meta=('n',), tolerate=1).read())
  assert documents == [Document('eins', 'parquet', 'a.parquet:1', {'n': '1'}),
                       Document('zwei', 'parquet', 'a.parquet:2', {'n': '2'}), Document('vier', 'parquet', 'a.parquet:4')]


def archive(path, gzip: bool) -> None:
  """A page, an answer that is none, a page in another charset, and a text as Common Crawl's WET files have it."""
  with path.open('wb') as stream:
    writer = WARCWriter(stream, gzip=gzip)

    def add(kind, uri, payload, status=None, type='text/html'):
      http = StatusAndHeaders(status, [('Content-Type', type)], protocol='HTTP/1.1') if status else None
      writer.write_record(writer.create_warc_record(uri, kind, payload=BytesIO(payload), http_headers=http,
                                                    warc_content_type='text/plain' if http is None else ''))
    add('response', 'http://a.org/', '<html><p>Hello &amp; é</p><script>x < y</script><p>Bye</html>'.encode(), '200 OK')
    add('response', 'http://a.org/no', b'<p>not found</p>', '404 Not Found')
    add('response', 'http://a.org/old', '<p>café</p>'.encode('latin-1'), '200 OK', 'text/html; charset=iso-8859-1')
    add('response', 'http://a.org/img', b'\x89PNG', '200 OK', 'image/png')
    add('conversion', 'http://b.org/', 'Straße\n'.encode())


@pytest.mark.parametrize('packed', [False, True])
def test_warc_and_wet(tmp_path, packed):
  archive(tmp_path / 'a.warc', packed)
  documents = list(Warc(f'{tmp_path}/*.warc').read())
  assert [d.text for d in documents] == ['Hello & é\n\nBye', 'café', 'Straße\n']
  assert [d.meta['url'] for d in documents] == ['http://a.org/', 'http://a.org/old', 'http://b.org/']
  assert len({d.id for d in documents}) == 3 and all(d.id.startswith('urn:uuid:') for d in documents)


@pytest.mark.parametrize('page, text', [
  ('<h1>A</h1>b <b>c</b>\n d<br>e', 'A\n\nb c\n\nd\n\ne'),
  ('<p title="a > b">x</p>', 'x'),
  ('a<!-- <p>no</p> -->b', 'ab'),
  ('1 < 2 &lt;b&gt; &#233;', '1 < 2 <b> é'),
  ('<style>p{}</style><nav>menu<nav>sub</nav></nav>text<svg/>more', 'textmore'),
  ('<SCRIPT>if (a</b) {}</SCRIPT >kept', 'kept'),
  ('seen<!-- never closed <p>gone', 'seen'),
  ('<p>one<p>two', 'one\n\ntwo'),
])
def test_text_of_html(page, text):
  assert html_text(page) == text


@pytest.mark.parametrize('piece', ['<!--', '<a "', "<a '", '<', '<a ', '<script>', '</nav>', '<nav>', '&', '<!'])
def test_hostile_html_takes_linear_time(piece):
  start = time.monotonic()
  html_text(piece * (1_000_000 // len(piece)))
  assert time.monotonic() - start < 20      # a quadratic one takes hours
