"""The tokenizer that a GGUF file brings in its metadata, as the tokenizer.json that it was made from.

    tokenizer = tokenizer_of(open_gguf(path).metadata)

Two kinds are known. `gpt2` is byte-pair encoding over bytes: tokens, merges, and the name of a rule by which texts are cut
before. `llama` is SentencePiece's: tokens with scores, from which merges follow (any two tokens that make a third, the best
third first), and bytes for characters without a token. Each token that the metadata gives a role, and each of the type
control, is a control token. NFC, which a file does not tell of, is done where the model's publishers do it.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from model.errors import DataError
from model.tokenizer import SPACE
from model.tokenizer_json import Specials, TokenizerJson

PREFIX = 'tokenizer.ggml.'
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)               # the types of tokens
OTHERWISE = 'make the file again with a converter of llama.cpp, or read the tokenizer.json that it was made from'

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r'\s+(?!\S)|\s+')
QWEN2 = LLAMA3.replace(r'\p{N}{1,3}', r'\p{N}')


def _bytes(words: bool) -> dict[str, Any]:
  return {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': words}


def _split(pattern: str) -> dict[str, Any]:
  return {'type': 'Split', 'pattern': {'Regex': pattern}, 'behavior': 'Isolated', 'invert': False}


CUTS: dict[str, list[dict[str, Any]]] = {
  'gpt-2': [_bytes(True)],
  'smollm': [{'type': 'Digits', 'individual_digits': True}, _bytes(True)],
  'llama-bpe': [_split(LLAMA3), _bytes(False)],
  'qwen2': [_split(QWEN2), _bytes(False)],
}


def tokenizer_of(metadata: dict[str, Any], where: str = 'the GGUF file') -> TokenizerJson:
  """The tokenizer; its fingerprint is that of the tokenizer.json. Where the file has no bos or no padding, eos does for it.

  Raises: DataError that names the field which is missing, wrong or unknown, and as `TokenizerJson` does.
  """
  kind = _field(metadata, 'model', where, str)
  if kind not in ('gpt2', 'llama'):
    raise _refusal(where, 'model', kind, 'the kinds that are known are gpt2 and llama')
  tokens, types = _tokens(metadata, where)
  model, cut = (_gpt2 if kind == 'gpt2' else _llama)(metadata, tokens, types, where)
  added = [{'id': i, 'content': token, 'special': kind == CONTROL, 'normalized': False, 'single_word': False, 'lstrip': False,
            'rstrip': False} for i, (token, kind) in enumerate(zip(tokens, types)) if kind in (CONTROL, USER)]
  spec = {'version': '1.0', 'truncation': None, 'padding': None, 'post_processor': None, 'added_tokens': added, 'model': model}
  return TokenizerJson(json.dumps(spec | cut).encode(), _specials(metadata, tokens, where), where)


def _gpt2(metadata: dict[str, Any], tokens: list[str], types: list[int], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
  name = _field(metadata, 'pre', where, str)
  if name not in CUTS:
    raise _refusal(where, 'pre', name, f'the rules that are known are {", ".join(CUTS)}')
  merges, known = [each.split(' ') for each in _list(metadata, 'merges', where, str)], {*tokens}
  for merge in merges:
    if len(merge) != 2 or not known >= {*merge, ''.join(merge)}:
      raise _refusal(where, 'merges', ' '.join(merge), 'a merge is two tokens that make a third, with a blank between them')
  model = {'type': 'BPE', 'vocab': _numbered(tokens), 'merges': merges, 'ignore_merges': name == 'llama-bpe'}
  return model, {'normalizer': {'type': 'NFC'} if name == 'qwen2' else None, 'decoder': _bytes(True),
                 'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': CUTS[name]}}


def _llama(metadata: dict[str, Any], tokens: list[str], types: list[int], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
  scores: list[float] = _list(metadata, 'scores', where, float, int)
  if len(scores) != len(tokens):
    raise _refusal(where, 'scores', len(scores), f'there are {len(tokens)} tokens')
  blank = bool(metadata.get(f'{PREFIX}add_space_prefix', True))
  before: list[dict[str, Any]] = [{'type': 'Prepend', 'prepend': SPACE}] if blank else []
  after: list[dict[str, Any]] = [{'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0}] if blank else []
  write = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': SPACE}
  read = {'type': 'Replace', 'pattern': {'String': SPACE}, 'content': ' '}
  unknown = next((token for token, kind in zip(tokens, types) if kind == UNKNOWN), None)
  model = {'type': 'BPE', 'vocab': _numbered(tokens), 'merges': list(_merges(tokens, types, scores)),
           'unk_token': unknown, 'fuse_unk': True, 'byte_fallback': True}
  return model, {'normalizer': {'type': 'Sequence', 'normalizers': [*before, write]}, 'pre_tokenizer': None,
                 'decoder': {'type': 'Sequence', 'decoders': [read, {'type': 'ByteFallback'}, {'type': 'Fuse'}, *after]}}


def _numbered(tokens: list[str]) -> dict[str, int]:
  return {token: i for i, token in enumerate(tokens)}


def _merges(tokens: list[str], types: list[int], scores: list[float]) -> Iterator[tuple[str, str]]:
  """Pairs of tokens that make a third, the best third first; of two ways to make one, as `transformers` orders them."""
  ids = {token: i for i, (token, kind) in enumerate(zip(tokens, types)) if kind in (NORMAL, USER)}
  found = [(scores[i], at, len(token) - at, token) for token, i in ids.items() for at in range(1, len(token))
           if token[:at] in ids and token[at:] in ids]
  for _, at, _, token in sorted(found, key=lambda each: each[:3], reverse=True):
    yield token[:at], token[at:]


def _tokens(metadata: dict[str, Any], where: str) -> tuple[list[str], list[int]]:
  tokens: list[str] = _list(metadata, 'tokens', where, str)
  types: list[int] = _list(metadata, 'token_type', where, int)
  if len(types) != len(tokens):
    raise _refusal(where, 'token_type', len(types), f'there are {len(tokens)} tokens')
  if unknown := {*types} - {*range(NORMAL, BYTE + 1)}:
    raise _refusal(where, 'token_type', min(unknown), f'the types that are known are {NORMAL} to {BYTE}')
  if double := next((one for one, other in pairwise(sorted(tokens)) if one == other), None):
    raise _refusal(where, 'tokens', double, 'two tokens are written alike')
  return tokens, types


def _specials(metadata: dict[str, Any], tokens: list[str], where: str) -> Specials:
  """The tokens that have a role, but for that of the unknown."""
  roles = {key.removeprefix(PREFIX).removesuffix('_token_id'): value for key, value in metadata.items()
           if key.startswith(PREFIX) and key.endswith('_token_id') and key != f'{PREFIX}unknown_token_id'}
  for role, i in roles.items():
    if not isinstance(i, int) or not 0 <= i < len(tokens):
      raise _refusal(where, f'{role}_token_id', i, f'there are {len(tokens)} tokens')
  eos = tokens[_field(metadata, 'eos_token_id', where, object)]
  bos, pad = (tokens[roles[role]] if role in roles else eos for role in ('bos', 'padding'))
  return Specials(bos, eos, pad, tuple(sorted({tokens[i] for i in roles.values()})))


def _field(metadata: dict[str, Any], name: str, where: str, kind: type) -> Any:
  key = f'{PREFIX}{name}'
  if key not in metadata:
    raise DataError('tokenizer.gguf', f'{where}: field {key!r}', 'it is missing', OTHERWISE)
  value = metadata[key]
  if not isinstance(value, kind):
    raise _refusal(where, name, value, f'it is no {kind.__name__}')
  return value


def _list(metadata: dict[str, Any], name: str, where: str, *kinds: type) -> list[Any]:
  value = _field(metadata, name, where, object)
  value = value.tolist() if isinstance(value, np.ndarray) else value
  if not isinstance(value, list):
    raise _refusal(where, name, value, 'it is no list')
  if wrong := [each for each in value if not isinstance(each, kinds)]:
    raise _refusal(where, name, wrong[0], f'it is no {kinds[0].__name__}')
  return value


def _refusal(where: str, name: str, value: Any, why: str) -> DataError:
  return DataError('tokenizer.gguf', f'{where}: field {f"{PREFIX}{name}"!r} has {value!r:.80}', why, OTHERWISE)
