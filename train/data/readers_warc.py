"""WARC and WET archives: the formats of Common Crawl. WET holds text; of the HTML in WARC the text is taken."""

import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from model.errors import DataError
from train.data.document import Document
from train.data.files import DAMAGE, damaged, name_of
from train.data.readers import Matching, empty
from train.data.webtext import html_text

LARGEST = 16 << 20      # bytes of a page; Common Crawl cuts at 1 MiB
CHARSET = re.compile(rb'charset\s*=\s*["\']?([A-Za-z0-9._:-]{1,40})', re.I)


@dataclass(frozen=True)
class Warc(Matching):
  """One document for each page in the archives that match `pattern`: `response` records (HTML) and `conversion` (text).

  The address and the date are kept in `meta`. Answers other than 200, and records without any text, are passed over.
  """

  _: KW_ONLY
  source: str = 'web'

  def within(self, path: Path) -> Iterator[Document | DataError]:
    number = 0
    for number, record in _archive(path):
      text = _text(record, f'{path}: record {number}')
      if text and text.strip():
        headers = record.rec_headers
        meta = {'url': headers.get_header('WARC-Target-URI') or '', 'date': headers.get_header('WARC-Date') or ''}
        id = headers.get_header('WARC-Record-ID') or f'{name_of(path, self.pattern)}:{number}'
        yield Document(text, self.source, id.strip('<>'), meta)
    if not number:
      raise empty(path, 'record')


def _archive(path: Path) -> Iterator[tuple[int, Any]]:
  """Pairs of record number, from 1, and warcio's record. Raises: DataError if the archive is damaged."""
  from warcio.archiveiterator import ArchiveIterator
  from warcio.exceptions import ArchiveLoadFailed
  number = 0
  with path.open('rb') as stream:
    try:
      for number, record in enumerate(ArchiveIterator(stream), 1):
        yield number, record
    except (ArchiveLoadFailed, *DAMAGE) as error:
      raise damaged(f'{path}: after record {number}', error) from error


def _text(record: Any, where: str) -> str | None:
  """The text of a record that has one. Raises: DataError if it is cut off or too large."""
  kind, http = record.rec_type, record.http_headers
  if kind == 'conversion':
    return _body(record, where).decode('utf-8', 'replace')
  if kind == 'response' and http and http.get_statuscode() == '200':
    declared = http.get_header('Content-Type') or ''
    if 'html' in declared.lower():
      return html_text(_decoded(_body(record, where), declared))
  return None


def _body(record: Any, where: str) -> bytes:
  body = record.content_stream().read(LARGEST + 1)
  if len(body) > LARGEST:
    raise DataError('data.too-large', where, f'the page has more than {LARGEST:,} bytes', 'let `tolerate` leave it out')
  length = record.rec_headers.get_header('Content-Length')
  if record.rec_type == 'conversion' and length and len(body) < int(length):
    raise damaged(where, EOFError(f'{len(body)} of {length} bytes'))
  return body


def _decoded(body: bytes, declared: str) -> str:
  """A page's characters as a browser finds them: UTF-8 if it is, else what it declares, else Windows-1252."""
  named = CHARSET.search(declared.encode()) or CHARSET.search(body[:1024])
  for charset in ('utf-8', named[1].decode() if named else 'cp1252'):
    try:
      return body.decode(charset)
    except (UnicodeDecodeError, LookupError):
      pass
  return body.decode('cp1252', 'replace')
