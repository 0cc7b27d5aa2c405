"""A tokenizer with more control tokens: the same file with their names at the end, so that whoever reads it has them too.

No text becomes one of them, whatever it says, and every text has the ids that it had.
"""

import json
import struct

from model.errors import ConfigError
from model.tokenizer import Tokenizer
from model.tokenizer_json import TokenizerJson
from model.tokenizer_spec import ids_of

CONTROL = 3          # the type of a control token in SentencePiece's files


def json_with(tokenizer: TokenizerJson, tokens: tuple[str, ...]) -> bytes:
  """Its tokenizer.json with these tokens added. Raises: ConfigError where it has one of them."""
  spec = json.loads(tokenizer.data)
  check_unknown(tokenizer.where, tokens, {*ids_of(spec), *tokenizer.controls})
  more = [{'id': tokenizer.size + i, 'content': token, 'single_word': False, 'lstrip': False, 'rstrip': False,
           'normalized': False, 'special': True} for i, token in enumerate(tokens)]
  return json.dumps(spec | {'added_tokens': [*spec['added_tokens'], *more]}, ensure_ascii=False).encode()


def pieces_with(data: bytes, pieces: list[str], tokens: tuple[str, ...], where: str) -> bytes:
  """A SentencePiece model with these tokens added. Raises: ConfigError where it has one of them.

  The file is a message of Protocol Buffers in which pieces are a repeated field, number 1: written one after another,
  wherever they stand.
  """
  check_unknown(where, tokens, {*pieces})
  made = data
  for token in tokens:
    name = token.encode()
    piece = b'\x0a' + _varint(len(name)) + name + b'\x15' + struct.pack('<f', 0.0) + b'\x18' + _varint(CONTROL)
    made += b'\x0a' + _varint(len(piece)) + piece
  return made


def _varint(number: int) -> bytes:
  """A number in groups of seven bits, the lowest first."""
  found = bytearray()
  while number > 0x7F:
    found.append(number & 0x7F | 0x80)
    number >>= 7
  return bytes([*found, number])


def check_unknown(where: str, tokens: tuple[str, ...], known: set[str]) -> None:
  """Raises: ConfigError for a token that is there already."""
  if there := [token for token in tokens if token in known]:
    raise ConfigError('vocabulary.token-there', f'{where}: {there[0]!r}', 'it has a token of that name',
                      'use it as it is, or give the new one another name')


def check_added(before: Tokenizer, after: Tokenizer, tokens: tuple[str, ...], where: str) -> None:
  """Returns when the new tokens have the next ids, and text that names them the ids that it had. Raises: ConfigError."""
  wanted = before.controls | {token: before.size + i for i, token in enumerate(tokens)}
  text = ' '.join(f'a{token}b {token}' for token in tokens)
  if after.controls != wanted or after.encode(text) != before.encode(text):
    raise ConfigError('vocabulary.cannot-extend', where, 'its format gives the new tokens other ids, or makes text into them',
                      'use a tokenizer whose ids have no gaps, or report it')
