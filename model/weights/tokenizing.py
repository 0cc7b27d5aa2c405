"""The tokenizer of a model that is given to others: a tokenizer.json for transformers, metadata for llama.cpp.

A published tokenizer goes out as it came. One that was learnt here is written as byte-pair encoding with bytes for characters
without a piece. Its tokens have blanks where SentencePiece writes U+2581, so that nothing need be replaced in a text, and a
U+2581 of the user's is its three bytes there as it is here. Nothing is written that gives other ids than ours on any of the
texts that are tried. What these libraries do with the name of a control token in a text is theirs: they take it for the token.
"""

import json
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from model.errors import ConfigError
from model.tokenizer import HARD, SPACE, SentencePiece, Tokenizer
from model.tokenizer_gguf import BYTE, CONTROL, CUTS, NORMAL, PREFIX, UNKNOWN, UNUSED, USER, tokenizer_of
from model.tokenizer_json import Specials, TokenizerJson
from model.tokenizer_spec import REACH, Spec, ids_of

Metadata = dict[str, Any]


class Named(NamedTuple):
  """The names of the tokens that documents begin and end with, and of what fills rows up."""

  bos: str
  eos: str
  pad: str


def named(tokenizer: Tokenizer) -> Named:
  """What the tokenizer calls them."""
  names = {i: name for name, i in tokenizer.controls.items()}
  return Named(names[tokenizer.bos], names[tokenizer.eos], names[tokenizer.pad])


def json_of(tokenizer: Tokenizer) -> bytes:
  """Its tokenizer.json. Raises: ConfigError `tokenizer.unlike` with the first text of which it would make other ids."""
  if isinstance(tokenizer, TokenizerJson):
    return tokenizer.data
  if not isinstance(tokenizer, SentencePiece):
    raise _unknown(tokenizer)
  data = _written(tokenizer)
  check_equal(tokenizer, TokenizerJson(data, Specials(*named(tokenizer))))
  return data


def _written(tokenizer: SentencePiece) -> bytes:
  spec = json.loads(tokenizer_of(_pieces(tokenizer), str(tokenizer.path)).data)
  model, bos = spec['model'], named(tokenizer).bos
  plain = {'vocab': {token.replace(SPACE, ' '): i for token, i in model['vocab'].items()},
           'merges': [[part.replace(SPACE, ' ') for part in merge] for merge in model['merges']]}
  before = {'SpecialToken': {'id': bos, 'type_id': 0}}
  begun = {'type': 'TemplateProcessing', 'single': [before, {'Sequence': {'id': 'A', 'type_id': 0}}],
           'pair': [before, {'Sequence': {'id': 'A', 'type_id': 0}}, {'Sequence': {'id': 'B', 'type_id': 0}}],
           'special_tokens': {bos: {'id': bos, 'ids': [tokenizer.bos], 'tokens': [bos]}}}
  return json.dumps(spec | {'model': model | plain, 'normalizer': None, 'post_processor': begun, 'decoder': {
    'type': 'Sequence', 'decoders': [{'type': 'ByteFallback'}, {'type': 'Fuse'}]}}, ensure_ascii=False).encode()


def metadata_of(tokenizer: Tokenizer, vocab: int) -> Metadata:
  """What a GGUF file says of it, with names for all ids of a model that has room for `vocab`.

  Raises: ConfigError `tokenizer.unlike` as `json_of`, `tokenizer.no-gguf` where such files have no words for it.
  """
  if isinstance(tokenizer, TokenizerJson):
    metadata = _bytes(tokenizer)
  elif isinstance(tokenizer, SentencePiece):
    metadata = _pieces(tokenizer)
  else:
    raise _unknown(tokenizer)
  more = range(tokenizer.size, vocab)
  metadata[f'{PREFIX}tokens'] += [f'[PAD{i}]' for i in more]
  metadata[f'{PREFIX}token_type'] = np.array([*metadata[f'{PREFIX}token_type'], *(UNUSED for _ in more)], np.int32)
  if f'{PREFIX}scores' in metadata:
    metadata[f'{PREFIX}scores'] = np.array([*metadata[f'{PREFIX}scores'], *(-1e4 for _ in more)], np.float32)
  check_equal(tokenizer, tokenizer_of(metadata))
  return metadata


def _pieces(tokenizer: SentencePiece) -> Metadata:
  """SentencePiece's tokens with their scores."""
  model, every = tokenizer.model, range(tokenizer.size)
  kinds = [BYTE if model.is_byte(i) else CONTROL if model.is_control(i) else UNKNOWN if model.is_unknown(i) else NORMAL
           for i in every]
  fields = {'model': 'llama', 'pre': 'default', 'tokens': list(tokenizer.pieces), 'token_type': kinds,
            'scores': [model.get_score(i) for i in every], 'unknown_token_id': model.unk_id(), 'add_space_prefix': False,
            'add_bos_token': True, 'add_eos_token': False}
  return _prefixed(fields | _roles(tokenizer))


def _bytes(tokenizer: TokenizerJson) -> Metadata:
  """Tokens and merges of byte-pair encoding over bytes."""
  spec = json.loads(tokenizers.Tokenizer.from_str(tokenizer.data.decode()).to_str())
  ids, texts = ids_of(spec), {each['content'] for each in spec['added_tokens']}
  names = {i: name for name, i in ids.items()}
  tokens = [names.get(i, f'[PAD{i}]') for i in range(tokenizer.size)]
  kinds = [UNUSED if i not in names else CONTROL if token in tokenizer.controls else USER if token in texts else NORMAL
           for i, token in enumerate(tokens)]
  fields = {'model': 'gpt2', 'pre': _rule(spec, tokenizer.where), 'tokens': tokens, 'token_type': kinds,
            'merges': [' '.join(merge) for merge in spec['model']['merges']],
            'add_bos_token': f'"{named(tokenizer).bos}"' in json.dumps(spec['post_processor'], ensure_ascii=False)}
  return _prefixed(fields | _roles(tokenizer))


def _rule(spec: Spec, where: str) -> str:
  """What llama.cpp calls the rule by which texts are cut. Raises: ConfigError if it is none that is known here."""
  steps = spec['pre_tokenizer'] or {}
  found = steps.get('pretokenizers', [steps])
  if spec['model']['type'] == 'BPE':
    for name, cut in CUTS.items():
      if [_essence(step) for step in found] == [_essence(step) for step in cut]:
        return name
  raise ConfigError('tokenizer.no-gguf', f'{where}: {json.dumps(found):.200}', 'GGUF files name the rule by which texts are '
                    f'cut, and those known here are {", ".join(CUTS)}', 'give the model as a folder: --format=hf')


def _essence(step: dict[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in step.items() if name != 'trim_offsets'}       # which moves no id


def _roles(tokenizer: Tokenizer) -> Metadata:
  return {'bos_token_id': tokenizer.bos, 'eos_token_id': tokenizer.eos, 'padding_token_id': tokenizer.pad}


def _prefixed(fields: Metadata) -> Metadata:
  return {f'{PREFIX}{name}': value for name, value in fields.items()}


def check_equal(ours: Tokenizer, theirs: Tokenizer) -> None:
  """Returns when both make the same ids of all that is tried. Raises: ConfigError that names the first text."""
  for text in _tried(ours):
    if (mine := ours.encode(text)) != (found := theirs.encode(text)):
      raise ConfigError('tokenizer.unlike', f'the tokenizer on {text[:60]!r}', f'it gives {mine[:12]}, and what would be '
                        f'written for others {found[:12]}', 'train the vocabulary with Vocabulary, or use the model here')


def _tried(tokenizer: Tokenizer) -> Iterator[str]:
  """Hard texts, all bytes, runs of blanks and of lines, and tokens joined at random, where merges could go several ways."""
  yield from (*HARD, *REACH)
  yield from (sign * count for sign in (' ', '\n', 'a', '=', ' \n') for count in range(1, 70))
  chance, texts = random.Random(0), [i for i in range(tokenizer.size) if tokenizer.bytes_of[i]]
  for _ in range(300):
    yield tokenizer.decode_bytes(chance.choices(texts, k=40)).decode('utf-8', 'ignore')


def _unknown(tokenizer: Tokenizer) -> ConfigError:
  return ConfigError('tokenizer.unlike', type(tokenizer).__name__, 'no form for others is known',
                     'use SentencePiece or TokenizerJson')
