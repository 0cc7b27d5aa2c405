"""Files as they come: found by pattern, opened whether gzipped or not, decoded strictly."""

import glob
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from model.errors import DataError

WIDE = ((b'\xff\xfe\0\0', 'UTF-32'), (b'\0\0\xfe\xff', 'UTF-32'), (b'\xff\xfe', 'UTF-16'), (b'\xfe\xff', 'UTF-16'))
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


def expand(pattern: str) -> list[Path]:
  """The files that a glob pattern names (`**` descends), sorted, so that every machine reads them in one order.

  Raises: DataError where there is none.
  """
  paths = [Path(name) for name in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))]
  files = [path for path in paths if path.is_file()]
  if not files:
    root = fixed_part(pattern)
    if any(path.is_dir() for path in paths):
      raise DataError('data.missing-file', pattern, 'no file matches, for it names a folder',
                      f'name the files in it, as in {Path(pattern) / "*.txt"}, or with ** for those of its folders too')
    why = f'no file matches; {root} ' + ('exists' if root.exists() else 'does not exist either')
    raise DataError('data.missing-file', pattern, why,
                    f'check the path; it is relative to the working folder {Path.cwd()}')
  return files


def fixed_part(pattern: str) -> Path:
  """The folder below which a pattern starts to vary: `a/b/*.txt` gives `a/b`."""
  parts = Path(pattern).expanduser().parts
  steady = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
  return Path(*parts[:steady])


def name_of(path: Path, pattern: str) -> str:
  """The file's name below the fixed part of the pattern: the same on every machine, unique within the pattern."""
  return path.relative_to(fixed_part(pattern)).as_posix()


def open_bytes(path: Path) -> BinaryIO:
  """The file's bytes, unpacked if it is gzip (told by its first bytes, not by its name).

  Raises: DataError if it may not be opened.
  """
  try:
    stream = path.open('rb')
    packed = stream.read(2) == b'\x1f\x8b'
  except OSError as error:
    raise DataError('data.unreadable', str(path), error.strerror or str(error), 'check its permissions') from error
  stream.seek(0)
  return gzip.open(stream) if packed else stream    # type: ignore[return-value]


def read_bytes(path: Path) -> bytes:
  """All bytes of the file, unpacked. Raises: DataError if a gzip file is cut off or damaged."""
  with open_bytes(path) as stream:
    try:
      return stream.read()
    except DAMAGE as error:
      raise damaged(str(path), error) from error


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
  """Pairs of line number (from 1) and its bytes without the newline.

  Raises: DataError, naming the last whole line, if a gzip file is cut off or damaged.
  """
  number = 0
  with open_bytes(path) as stream:
    try:
      for number, line in enumerate(stream, 1):
        yield number, line.rstrip(b'\r\n')
    except DAMAGE as error:
      raise damaged(f'{path}: after line {number}', error) from error


def damaged(where: str, error: Exception) -> DataError:
  """The refusal of a compressed or framed file whose bytes are not what was once written."""
  return DataError('data.damaged-file', where, f'the file is cut off or its checksum is wrong ({error})',
                   'fetch or write the file again')


def decode(data: bytes, where: str) -> str:
  """Strict UTF-8, without a byte order mark. `where` names the file, or the file and the line.

  Raises: DataError naming the byte.
  """
  wide = next((name for mark, name in WIDE if data.startswith(mark)), None)
  if wide:
    raise DataError('data.not-utf8', where, f'the file is {wide}, not UTF-8', f'iconv -f {wide} -t UTF-8 it')
  try:
    return data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    start = error.start + (3 if data.startswith(b'\xef\xbb\xbf') else 0)
    line = data.count(b'\n', 0, start) + 1
    column = start - data.rfind(b'\n', 0, start)
    raise DataError('data.not-utf8', f'{where}: line {line}, byte {column}' if line > 1 else f'{where}: byte {column}',
                    f'byte 0x{data[start]:02x} is not UTF-8 there', 'convert the file (iconv -t UTF-8)') from error


def whole(text: str, where: str) -> str:
  """The text itself, which can be written as UTF-8. Raises: DataError where half of a surrogate pair stands alone."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise DataError('data.lone-surrogate', f'{where}: character {error.start + 1}',
                    f'U+{ord(text[error.start]):04X} is half of a surrogate pair and no character',
                    'write the record again with whole characters, or let `tolerate` leave it out') from error
  return text


def sha256_of(path: Path) -> str:
  """sha256 of the file as it lies on disk, in hex."""
  with path.open('rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()
