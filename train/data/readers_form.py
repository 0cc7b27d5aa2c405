"""The format of a file, recognised by its first bytes, so that a file given to the wrong reader gets a helpful error.

A reader asks when its first record is broken, or where a file of another format would pass for its own, as JSON lines would
for text. If the format is not certain there is no answer, and the reader raises its own error.
"""

import csv
import json
from pathlib import Path
from typing import NamedTuple

from model.errors import DataError
from train.data.files import WIDE, open_bytes

HEAD = 1 << 16          # bytes that are looked at
LINES = 20              # and of them so many lines
ZEROS = 0.2             # share of zero bytes above which it is no text in UTF-8


class Form(NamedTuple):
  """A format: what it is called, and how to read it."""

  is_a: str
  do: str


JSON_LINES = Form('JSON lines', "read it with JsonLines('...', field='...') of train.data.readers")
CSV = Form('CSV', "read its texts with CsvFiles('...', field='...') of train.data.readers_csv, or write one {...} a line")
TEXT = Form('plain text', "read it with TextFiles('...') of train.data.readers")
PARQUET = Form('Parquet', "read it with Parquet('...', column='...') of train.data.readers_parquet")
WIDE_TEXT = Form('UTF-16 or binary', 'if it is text, iconv -f UTF-16LE -t UTF-8 it')
JSON = Form('JSON over many lines', "write one {...} a line, for example with jq -c '.[]'")
UNPACK = 'unpack it: of compressed files those of gzip alone are read as they are'
MAGIC = {
  b'PAR1': PARQUET,
  b'%PDF-': Form('PDF', 'make text of it first, for example with pdftotext'),
  b'PK\x03\x04': Form('a zip archive, as .docx and .xlsx files are too', 'unpack it, or make text or CSV of it'),
  b'\x28\xb5\x2f\xfd': Form('compressed with zstd', UNPACK),
  b'\xfd7zXZ\0': Form('compressed with xz', UNPACK),
  b'BZh91AY&SY': Form('compressed with bzip2', UNPACK),
  b'\x1f\x8b': Form('compressed with gzip', 'unpack it: this reader takes such files unpacked alone'),
}
NAMES = {'.jsonl': JSON_LINES, '.ndjson': JSON_LINES, '.csv': CSV, '.tsv': CSV}


def refusal(path: Path, own: Form, head: bytes | None = None, guess: bool = True) -> DataError | None:
  """The refusal of a file that is of another form than the reader's own; None where it is not, or none is known for sure.

  Without `guess` its marks and its name must say so: lines of verse, too, may have as many commas each.
  """
  form = form_of(_head(path) if head is None else head[:HEAD], path, guess)
  if form is None or form == own:
    return None
  return DataError('data.other-form', str(path), f'it looks like {form.is_a}, not {own.is_a}', form.do)


def form_of(head: bytes, path: Path, guess: bool = True) -> Form | None:
  """What a file is that begins so; None where that is not clear."""
  if magic := next((form for mark, form in MAGIC.items() if head.startswith(mark)), None):
    return magic
  if head.startswith(tuple(mark for mark, _ in WIDE)):
    return None                                     # the mark of UTF-16: who decodes it says so
  if head.count(0) > ZEROS * len(head):
    return WIDE_TEXT
  named = next((NAMES[suffix] for suffix in path.suffixes[::-1] if suffix in NAMES), None)
  if named == CSV or (named is None and not guess):
    return named
  lines = _whole_lines(head)
  if any(map(_is_object, lines)):
    return JSON_LINES
  if head.lstrip()[:1] in (b'{', b'['):
    return JSON
  return CSV if _is_table(lines) else TEXT if lines else None


def _head(path: Path) -> bytes:
  """Its first bytes, unpacked."""
  with open_bytes(path) as stream:
    return stream.read(HEAD)


def _whole_lines(head: bytes) -> list[str]:
  """The first of its lines that are not blank, without the last where that may be cut off."""
  lines = head.decode('utf-8-sig', 'replace').splitlines()
  whole = lines[:-1] if len(head) == HEAD and len(lines) > 1 else lines
  return [line for line in whole if line.strip()][:LINES]


def _is_object(line: str) -> bool:
  try:
    return isinstance(json.loads(line), dict)
  except (ValueError, RecursionError):
    return False


def _is_table(lines: list[str]) -> bool:
  """Whether the lines have two columns or more, all as many."""
  return len(lines) > 1 and any(min(columns) == max(columns) > 1 for columns in (_columns(lines, mark) for mark in ',\t;'))


def _columns(lines: list[str], mark: str) -> list[int]:
  try:
    return [len(row) for row in csv.reader(lines, delimiter=mark)]
  except csv.Error:
    return [0]
