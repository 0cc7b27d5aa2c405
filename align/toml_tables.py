"""Reads TOML files that list tables of one kind, each under a line [[kind]]: principles, limits."""

import re
import tomllib
from pathlib import Path
from typing import Any

from model.errors import DataError
from train.data.files import decode, read_bytes


def read_entries(path: Path | str, kind: str) -> list[tuple[str, dict[str, Any]]]:
  """(where, table) for each table of the file, in order; `where` names file:line and its place among them.

  Raises: DataError `<kind>.bad-toml` if the file is no TOML, `<kind>.none` if it holds no such tables or anything else.
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
