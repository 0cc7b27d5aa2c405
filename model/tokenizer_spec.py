"""What a tokenizer.json says, as the `tokenizers` library writes it: its tokens, what they stand for, what it does to texts."""

import json
import re
import secrets
from collections.abc import Callable
from typing import Any, Literal

from model.errors import DataError

Spec = dict[str, Any]

WORD = secrets.token_hex(16)             # begins what a control token is called inside the library
BYTE = re.compile('<0x([0-9A-F]{2})>')
BYTES = frozenset(f'<0x{byte:02X}>' for byte in range(256))
UNKNOWN = '\ufffd'.encode()              # what the unknown token of a vocabulary without bytes stands for
# texts that have, together, each byte that UTF-8 has
REACH = [''.join(map(chr, some)) for some in (*(range(i, i + 16) for i in range(0, 0x800, 16)), range(0x800, 0xD800, 0x800),
                                              (0xE000, 0xF000), range(0x10000, 0x110000, 0x10000))]


def _alphabet() -> dict[str, int]:
  """The byte for which each character stands in byte-level vocabularies (GPT-2's `bytes_to_unicode`)."""
  seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(0x100) if byte not in seen]
  return {chr(byte): byte for byte in seen} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


ALPHABET = _alphabet()


def ids_of(spec: Spec) -> dict[str, int]:
  """The id of each token. Of two that a list calls alike the first has the name."""
  vocab = spec['model']['vocab']
  own = vocab if isinstance(vocab, dict) else {token: i for i, (token, _) in reversed([*enumerate(vocab)])}
  return own | {each['content']: each['id'] for each in spec['added_tokens']}


def unknown_of(spec: Spec, ids: dict[str, int]) -> str | None:
  """The token that text becomes for want of a better one, if there is one and text ever needs it."""
  model = spec['model']
  name = model.get('unk_token')
  if isinstance(model['vocab'], list) and model.get('unk_id') is not None:
    name = model['vocab'][model['unk_id']][0]
  in_bytes = any(step['type'] == 'ByteLevel' for part in ('normalizer', 'pre_tokenizer') for step in _steps(spec[part]))
  needed = {each for each, byte in ALPHABET.items() if byte in ''.join(REACH).encode()} if in_bytes else BYTES
  return None if (in_bytes or model.get('byte_fallback')) and needed <= ids.keys() else name


def writes_bytes(spec: Spec, ids: dict[str, int]) -> bool:
  """Whether characters without a token are written as `<0x00>` to `<0xFF>`."""
  return bool(spec['model'].get('byte_fallback')) and ids.keys() >= BYTES


def spelling(spec: Spec, where: str) -> tuple[Callable[[str], bytes], bool]:
  """What a token stands for, and whether its decoder takes the first blank of a text off.

  Raises: DataError for a decoder that is not known here.
  """
  steps = _steps(spec['decoder']) or [{'type': 'WordPiece', 'prefix': WORD}]        # without one, the library joins by blanks
  for step in steps:
    if not _is_known(step):
      raise DataError('tokenizer.unknown-decoder', f'{where}: decoder {json.dumps(step)}',
                      'what its tokens stand for is not known here', 'use a tokenizer with another decoder')
  added = {each['content'] for each in spec['added_tokens']}
  strips = any(step['type'] in ('Strip', 'WordPiece') or step.get('prepend_scheme', 'never') != 'never' for step in steps)
  return lambda token: _spelt(token, steps, token in added), strips


Prefix = Literal['', 'every', 'bare', 'first']
"""Where a model puts a blank: nowhere; before every text, also one that follows a control token; before each such text that
does not begin with one; before one at the very beginning alone."""
SCHEMES: dict[str, Prefix] = {'first': 'first', 'always': 'bare'}


def without_prefix(spec: Spec) -> tuple[Spec, Prefix]:
  """The tokenizer without the blank that its model puts before texts, and where it puts one."""
  normalizer, (cutter, *others) = _steps(spec['normalizer']), _steps(spec['pre_tokenizer']) or [{}]
  match normalizer, cutter:
    case [{'type': 'Prepend', 'prepend': '\u2581'}, {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '\u2581'}], _:
      return spec | {'normalizer': normalizer[1]}, 'every'
    case [], {'type': 'Metaspace', 'prepend_scheme': 'first' | 'always' as scheme}:
      bare, prefix = cutter | {'prepend_scheme': 'never'}, SCHEMES[scheme]
    case [], {'type': 'ByteLevel', 'add_prefix_space': True}:
      bare, prefix = cutter | {'add_prefix_space': False}, SCHEMES['always']
    case _:
      return spec, ''
  return spec | {'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [bare, *others]}}, prefix


def hidden(spec: Spec, controls: dict[str, int]) -> Spec:
  """The same tokenizer, its control tokens under names that no text can say, without what comes after the model."""
  called = {name: f'{WORD}{i}' for name, i in controls.items()}
  model, vocab = spec['model'], spec['model']['vocab']
  renamed: Spec = {'vocab': {called.get(token, token): i for token, i in vocab.items()} if isinstance(vocab, dict) else
                   [[called.get(token, token), score] for token, score in vocab]}
  if 'merges' in model:
    skip = len(model.get('continuing_subword_prefix') or '')
    renamed |= {'merges': [[a, b] for a, b in model['merges'] if not called.keys() & {a, b, a + b[skip:]}], 'dropout': None}
  if model.get('unk_token') is not None:
    renamed |= {'unk_token': called.get(model['unk_token'], model['unk_token'])}
  added = [each | {'content': called.get(each['content'], each['content'])} for each in spec['added_tokens']]
  return spec | {'model': model | renamed, 'added_tokens': added, 'post_processor': None, 'truncation': None, 'padding': None}


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
  """The steps of a normaliser, a pre-tokenizer or a decoder, in order."""
  if part is None:
    return []
  inner = next((part[each] for each in ('normalizers', 'pretokenizers', 'decoders') if each in part), None)
  return [part] if inner is None else [step for each in inner for step in _steps(each)]


def _is_known(step: dict[str, Any]) -> bool:
  match step:
    case {'type': 'ByteLevel' | 'ByteFallback' | 'Fuse' | 'Metaspace' | 'WordPiece' | 'BPEDecoder'}:
      return True
    case {'type': 'Replace', 'pattern': {'String': _}} | {'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0}:
      return True
  return False


def _spelt(token: str, steps: list[dict[str, Any]], added: bool) -> bytes:
  for step in steps:
    match step['type']:
      case 'ByteLevel':
        return token.encode() if added or not ALPHABET.keys() >= set(token) else bytes(map(ALPHABET.__getitem__, token))
      case 'ByteFallback' if found := BYTE.fullmatch(token):
        return bytes([int(found[1], 16)])
      case 'Replace':
        token = token.replace(step['pattern']['String'], step['content'])
      case 'Metaspace':
        token = token.replace(step['replacement'], ' ')
      case 'BPEDecoder':
        token = token.replace(step['suffix'], ' ')
      case 'WordPiece':
        token = token.removeprefix(step['prefix']) if token.startswith(step['prefix']) else f' {token}'
  return token.encode()
