"""A published tokenizer, from its `tokenizer.json`, behind the same interface as ours.

    tokenizer = read_tokenizer(Path('SmolLM2-135M-Instruct'))       or      TokenizerJson(data, Specials(bos, eos, pad))

The `tokenizers` library looks for the names of control tokens in every text, so that a user who writes `<|im_end|>` ends
the turn. Here it never learns these names: before it sees the file, each is replaced by a word that nobody can guess, in
the list of added tokens and in the vocabulary (some algorithms find a piece there by its name alone). Control tokens stand
in `controls`, for templates. Added tokens that are not special, such as GPT-NeoX's runs of blanks, are text and stay.

Ids are those of the library without its post-processor, truncation and padding, save where it would lose text. Models made
from SentencePiece write a space as U+2581: a U+2581 of the user's goes through as its three bytes. A blank that the model
puts before each text is put there by us, once and always, and taken off again by `decode`: the library puts none before a
text that begins with one, and another one after each added token.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers

from model.errors import DataError
from model.tokenizer import HARD, SPACE, check_lossless, spelled
from model.tokenizer_spec import REACH, UNKNOWN, Spec, hidden, ids_of, spelling, unknown_of, without_prefix, writes_bytes
from model.tokenizer_words import edges_of

FILE, CONFIG, MAP = 'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'
STANDS_IN = {'eos': ('eos', 'sep'), 'bos': ('bos', 'cls', 'eos'), 'pad': ('pad', 'eos', 'sep')}      # for one that is not there
AGAIN = 'download it again'
MOST = 1 << 24                           # ids; a list is as long as the highest


class Specials(NamedTuple):
  """The names of what documents begin and end with and of what fills rows up; `more` are further control tokens.

  Some files do not say of all control tokens that they are special, DeepSeek's of `<\uff5cUser\uff5c>`: those are for `more`.
  """

  bos: str
  eos: str
  pad: str
  more: tuple[str, ...] = ()


class TokenizerJson:
  """The tokenizer in a tokenizer.json. Ids without a token (`bytes_of` is 0) are neither text nor control.

  `lossless` says whether every text that was tried comes back as it was, `loss` which one does not: normalisers and
  vocabularies of words lose text, and so do byte-level ones that lack some bytes. Where the vocabulary has an unknown token
  that text becomes, that token is no control: it stands for U+FFFD. WordPiece's rules for blanks around punctuation are
  left out, so that what ids stand for is the same in every company.
  Raises: DataError if the file is damaged (`sha256` says what it should be), of a kind that is not known, or lacks a name.
  """

  def __init__(self, data: bytes, specials: Specials, where: str = FILE, sha256: str | None = None):
    self.where, self.data, self.fingerprint = where, data, hashlib.sha256(data).hexdigest()
    if sha256 not in (None, self.fingerprint):
      raise DataError('tokenizer.damaged', f'{where}: sha256 {self.fingerprint}', f'sha256 {sha256} was expected', AGAIN)
    spec, self._prefix = without_prefix(_parse(data, where))
    ids, unknown = ids_of(spec), unknown_of(spec, ids_of(spec))
    self.size = max(ids.values()) + 1
    self.bos, self.eos, self.pad = _needed(ids, specials, unknown, where)
    names = {each['content'] for each in spec['added_tokens'] if each['special']} | {*specials[:3], *specials.more}
    self.controls = {name: ids[name] for name in sorted(names - {unknown}, key=ids.__getitem__)}
    spell, strips = spelling(spec, where)
    self._strips = strips or bool(self._prefix)
    escapes = spell(SPACE) == b' ' and writes_bytes(spec, ids)
    self._space = [ids[f'<0x{byte:02X}>'] for byte in SPACE.encode()] if escapes else []
    self.table = [b''] * self.size
    for name in ids.keys() - self.controls.keys():
      self.table[ids[name]] = spell(name)
    self.edges = edges_of(self.table)                 # the unknown token's too: with WordPiece it is a word
    if unknown in ids:
      self.table[ids[unknown]] = UNKNOWN
    self.bytes_of = np.array([len(each) for each in self.table], np.int32)
    self._model = _library(json.dumps(hidden(spec, self.controls)), where)
    self.loss = self._lost([*HARD, *REACH, *(f'a {each["content"]} b{each["content"]}' for each in spec['added_tokens'])])
    self.lossless = not self.loss

  def encode(self, text: str) -> list[int]:
    """Its ids, none of them a control id, whatever the text says.

    Raises: DataError for a lone surrogate, which is no character and cannot be written as UTF-8.
    """
    return self._parts(f' {text}' if self._prefix and text else text)

  def encode_on(self, text: str, control: bool) -> list[int]:
    blank = control and text and (self._prefix == 'every' or (self._prefix == 'bare' and not text.startswith(' ')))
    return self._parts(f' {text}' if blank else text)

  def decode(self, ids: Sequence[int]) -> str:
    """The text; control ids are silent, and bytes that are no UTF-8 (an answer cut short) become U+FFFD."""
    text = self.decode_bytes(ids).decode('utf-8', 'replace')
    return text.removeprefix(' ') if self._strips else text

  def decode_on(self, ids: Sequence[int], control: bool) -> str:
    text = self.decode_bytes(ids).decode('utf-8', 'replace')
    strips = control and self._prefix in ('every', 'bare') if self._prefix else self._strips
    return text.removeprefix(' ') if strips else text

  def decode_bytes(self, ids: Sequence[int]) -> bytes:
    """The bytes that the ids stand for, one after another: with the blank that the model puts before a text."""
    return spelled(self.table, ids, self.where)

  def _parts(self, text: str) -> list[int]:
    _check_characters(text)
    first, *rest = text.split(SPACE) if self._space else [text]
    ids = self._encode(first)
    for part in rest:
      ids += self._space + self._encode(part)
    return ids

  def _encode(self, text: str) -> list[int]:
    with _refusing('tokenizer.no-token', f'{self.where}: {text[:60]!r}', 'it cannot be encoded', 'use another tokenizer'):
      return self._model.encode(text, add_special_tokens=False).ids

  def _lost(self, texts: Iterable[str]) -> str:
    try:
      check_lossless(self, self.where, texts)
    except DataError as error:
      return error.what
    return ''


def read_tokenizer(path: Path, sha256: str | None = None) -> TokenizerJson:
  """The tokenizer of a published model, from its tokenizer.json and what the files beside it call its tokens.

  One without bos begins documents with cls or else eos; one without pad fills rows up with eos.
  Raises: DataError as `TokenizerJson` does, and if a file cannot be read or nothing is called eos.
  """
  path = path / FILE if path.is_dir() else path
  try:
    data = path.read_bytes()
  except OSError as error:
    raise DataError('data.missing-file', str(path), error.strerror or 'it cannot be read',
                    'give the folder of a published model, or its tokenizer.json') from None
  said = _said(path.with_name(MAP)) | _said(path.with_name(CONFIG))
  found = {role: said[each] for role, others in STANDS_IN.items() for each in reversed(others) if each in said}
  if missing := [role for role in STANDS_IN if role not in found]:
    beside = path.with_name(CONFIG)
    there, do = (f'it names no {missing[0]}_token', 'name it there') if beside.exists() else (
        f'there is no such file to name the {missing[0]}_token', f'put the {CONFIG} of the same model there')
    raise DataError(f'tokenizer.no-{missing[0]}', f'{beside}: {there}',
                    'documents begin with bos, end with eos, and rows are filled up with pad',
                    f'{do}, or give TokenizerJson the names')
  return TokenizerJson(data, Specials(found['bos'], found['eos'], found['pad']), str(path), sha256)


def _said(path: Path) -> dict[str, str]:
  """What a file beside it calls the tokens: bos, eos, pad and others by their roles."""
  if not path.exists():
    return {}
  try:
    held = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise DataError('tokenizer.damaged', str(path), f'it is no JSON: {error}', AGAIN) from None
  named = {key.removesuffix('_token'): value.get('content') if isinstance(value, dict) else value
           for key, value in (held.items() if isinstance(held, dict) else ()) if key.endswith('_token')}
  return {role: name for role, name in named.items() if isinstance(name, str)}


@contextmanager
def _refusing(id: str, what: str, why: str, do: str) -> Iterator[None]:
  """What the library refuses is a DataError. It has no class of its own for that, and where it panics no Exception at all."""
  try:
    yield
  except (KeyboardInterrupt, SystemExit):
    raise
  except BaseException as error:
    raise DataError(id, what, f'{why}: {error}', do) from None


def _library(text: str, where: str) -> tokenizers.Tokenizer:
  with _refusing('tokenizer.damaged', f'{where}: {len(text)} characters', 'it is no tokenizer', AGAIN):
    return tokenizers.Tokenizer.from_str(text)


def _parse(data: bytes, where: str) -> Spec:
  """What the file says as the library writes it down: in one form, whatever version wrote the file."""
  try:
    text = data.decode()
  except UnicodeDecodeError as error:
    raise DataError('tokenizer.damaged', f'{where}: {len(data)} bytes', f'it is no UTF-8: {error}', AGAIN) from None
  spec = json.loads(_library(text, where).to_str())
  if not 0 <= max(ids_of(spec).values(), default=-1) < MOST:
    raise DataError('tokenizer.damaged', where, f'its vocabulary is empty, or has ids of {MOST} and above', AGAIN)
  return spec


def _needed(ids: dict[str, int], specials: Specials, unknown: str | None, where: str) -> list[int]:
  """The ids of bos, eos and pad."""
  for role, name in zip(('bos', 'eos', 'pad', *['control'] * len(specials.more)), specials[:3] + specials.more):
    if name not in ids:
      raise DataError(f'tokenizer.no-{role}', f'{where}: it has no token {name!r}',
                      'documents begin with bos, end with eos, and rows are filled up with pad', 'name a token that it has')
    if name == unknown:
      raise DataError('tokenizer.unknown-is-control', f'{where}: {name!r} as {role}',
                      'text that has no token of its own becomes this one, and text must never become a control token',
                      f'name another token as {role}')
  return [ids[name] for name in specials[:3]]


def _check_characters(text: str) -> None:
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise DataError('data.lone-surrogate', f'U+{ord(text[error.start]):04X} in {text[max(0, error.start - 20):][:40]!r}',
                    'half of a surrogate pair is no character and has no UTF-8', 'repair or remove it') from None
