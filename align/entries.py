"""Lists of things in TOML files that people write: principles, limits. Each is a table that begins with a line [[kind]]."""

import re
import tomllib
from pathlib import Path
from typing import Any

from model.errors import DataError
from train.data.files import decode, read_bytes


def read_entries(path: Path | str, kind: str) -> list[tuple[str, dict[str, Any]]]:
  """The tables of a file in their order, each with where it stands: file:line, its place among them.

  Raises: DataError `<kind>.bad-toml` or `<kind>.none` where the file is no TOML, or holds anything else or nothing.
  """
  text = decode(read_bytes(Path(path)), str(path))
  try:
    tables = tomllib.loads(text)
  except tomllib.TOMLDecodeError as error:
    raise DataError(f'{kind}.bad-toml', str(path), str(error), 'mend the file; strings stand in quotes') from error
  entries = tables.get(kind)
  if tables.keys() != {kind} or not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
    raise DataError(f'{kind}.none', f'{path}: it holds {", ".join(tables) or "nothing"}', f'it is a list of {kind}s and '
                    'nothing else', f'begin each with a line [[{kind}]]')
  begins = re.compile(rf'\s*\[\[\s*{kind}\s*\]\]')
  lines = [number for number, line in enumerate(text.splitlines(), 1) if begins.match(line)]
  told = len(lines) == len(entries)                      # a text of several lines may hold such a line
  return [(f'{path}{f":{lines[place]}" if told else ""}: {kind} {place + 1} of {len(entries)}', entry)
          for place, entry in enumerate(entries)]
