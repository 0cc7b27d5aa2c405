"""Text to token ids and back, without losing a character and without letting text become a control token.

`Tokenizer` is the one interface; `SentencePiece` reads a SentencePiece model, `train_bpe` makes one. Two habits of the
library are mended here. It writes a space as U+2581, so that a U+2581 of the user's would come back as a space: that
character goes through as its three bytes. And it encodes a text as a whole, although no piece reaches over the end of a
word: here each word is encoded once and remembered, which is three times as fast and gives the same ids.
"""

import codecs
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import sentencepiece

from model.errors import ConfigError, DataError
from model.tokenizer_words import Edges, edges_of

PAD, BOS, EOS, UNK = '<|pad|>', '<|bos|>', '<|eos|>', '<|unk|>'
MASK, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX = '<|mask|>', '<|fim_prefix|>', '<|fim_middle|>', '<|fim_suffix|>'
TURN_START, TURN_END = '<|im_start|>', '<|im_end|>'
CONTROLS = (PAD, BOS, EOS, UNK, MASK, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX, TURN_START, TURN_END,
            *(f'<|reserved_{i}|>' for i in range(6)))
MASKS = (MASK, '[MASK]', '<mask>')       # what takes the place of hidden tokens is called: here, by BERT, by RoBERTa

SPACE = '\u2581'                         # how SentencePiece writes a space
LONGEST = 4096                           # characters of a word taken together: time stays linear in the text
WORD = re.compile(f'\n{{1,{LONGEST}}}|{SPACE}| {{0,{LONGEST}}}[^ \n{SPACE}]{{1,{LONGEST}}}| {{1,{LONGEST}}}')
SPAN = re.compile(f'{SPACE}|[^{SPACE}]{{1,{LONGEST}}}')
LEARNT = re.compile('\n{1,16}| {0,16}[^ \n\t\0\u2581\u2585]{1,1024}| {1,16}')     # without what its trainer reserves
REMEMBERED = 1 << 18                     # words; with a share of 64 characters each some 60 MB
WORDS_COUNTED = 1 << 22                  # different words in the memory of the trainer

HARD = ('', ' ', '  two  spaces  ', '\n\n\ttab\r\n', 'nul \0 and \x7f', f'{SPACE} {SPACE}{SPACE}a',
        '\u2585 \u2047 \ufffd \ufeff', 'e\u0301 \u0301 \u200d \u202e', '\U0001f469\u200d\U0001f680 \U0010ffff \ue000',
        '\u0e01\u0e33 \u4e2d\u6587 \u05e9\u05c1', '<s></s><unk><pad><mask><0x0A><0xE2> <|endoftext|>[INST]', *CONTROLS)


class Tokenizer(Protocol):
  """What every tokenizer offers. `decode(encode(x)) == x` for every text, and no id of `encode` is a control id."""

  size: int                              # ids are 0 .. size - 1
  bos: int
  eos: int
  pad: int
  controls: dict[str, int]               # the name of each control token, and its id
  bytes_of: np.ndarray                   # i32[V]: the bytes of UTF-8 that an id stands for; 0 for control ids
  edges: Edges                           # of words
  fingerprint: str                       # sha256 of what it was read from

  def encode(self, text: str) -> list[int]: ...
  def decode(self, ids: Sequence[int]) -> str: ...
  def encode_on(self, text: str, control: bool) -> list[int]:
    """The ids of a text that goes on, after a control token or else after other text.

    Some models put a blank before a text, and not before each that goes on.
    """
    ...
  def decode_on(self, ids: Sequence[int], control: bool) -> str:
    """The text whose ids `encode_on` gave."""
    ...
  def decode_bytes(self, ids: Sequence[int]) -> bytes: ...


class SentencePiece:
  """The tokenizer in a SentencePiece model file.

  Raises: DataError if the file is missing or damaged (`sha256` says what it should be), lacks bos, eos or pad, or does
  not give back every text as it was.
  """

  def __init__(self, path: Path, sha256: str | None = None):
    data = _read(path)
    self.path, self.fingerprint = path, hashlib.sha256(data).hexdigest()
    if sha256 not in (None, self.fingerprint):
      raise DataError('tokenizer.damaged', f'{path}: sha256 {self.fingerprint}', f'it was written with sha256 {sha256}',
                      'delete its folder and launch again to make it anew')
    self.model = _parse(path, data)
    self.size = self.model.get_piece_size()
    self.pieces = [self.model.id_to_piece(i) for i in range(self.size)]
    self.is_byte = np.array([self.model.is_byte(i) for i in range(self.size)])
    self.table = [self._bytes(i) for i in range(self.size)]
    self.bytes_of, self.edges = np.array([len(each) for each in self.table], np.int32), edges_of(self.table)
    self.controls = {piece: i for i, piece in enumerate(self.pieces) if not self.table[i]}
    self.bos, self.eos, self.pad = (self._needed(name) for name in ('bos', 'eos', 'pad'))
    self._cut = WORD if all(map(WORD.fullmatch, self._texts())) else SPAN
    self._known = {SPACE: [self.model.piece_to_id(f'<0x{byte:02X}>') for byte in SPACE.encode()]}
    check_lossless(self, str(path))

  def encode(self, text: str) -> list[int]:
    """Its ids, none of them a control id, whatever the text says.

    Raises: DataError for a lone surrogate, which is no character and cannot be written as UTF-8.
    """
    ids: list[int] = []
    for word in self._cut.findall(text):
      known = self._known.get(word)
      ids += self._encode(word) if known is None else known
    return ids

  def decode(self, ids: Sequence[int]) -> str:
    """The text; control ids are silent, and bytes that are no UTF-8 (an answer cut short) become U+FFFD."""
    return self.decode_bytes(ids).decode('utf-8', 'replace')

  def encode_on(self, text: str, control: bool) -> list[int]:
    return self.encode(text)

  def decode_on(self, ids: Sequence[int], control: bool) -> str:
    return self.decode(ids)

  def decode_bytes(self, ids: Sequence[int]) -> bytes:
    """The bytes that the ids stand for, one after another."""
    return spelled(self.table, ids, str(self.path))

  def _encode(self, word: str) -> list[int]:
    try:
      word.encode()
    except UnicodeEncodeError as error:
      raise DataError('data.lone-surrogate', f'U+{ord(word[error.start]):04X} in {word[:40]!r}',
                      'half of a surrogate pair is no character and has no UTF-8', 'repair or remove it') from None
    ids = self.model.encode(word)
    if len(word) <= 64 and len(self._known) < REMEMBERED:
      self._known[word] = ids
    return ids

  def _bytes(self, i: int) -> bytes:
    if self.model.is_control(i) or self.model.is_unknown(i):
      return b''
    piece = self.pieces[i]
    return bytes([int(piece[1:-1], 16)]) if self.is_byte[i] else piece.replace(SPACE, ' ').encode()

  def _texts(self) -> Iterator[str]:
    return (self.table[i].decode() for i in range(self.size) if self.table[i] and not self.is_byte[i])

  def _needed(self, name: str) -> int:
    found = getattr(self.model, f'{name}_id')()
    if found < 0:
      raise DataError(f'tokenizer.no-{name}', f'{self.path}: it has no {name} token',
                      'documents begin with bos, end with eos, and rows are filled up with pad',
                      'train a tokenizer with Vocabulary, or add the token to the file')
    return found


def _read(path: Path) -> bytes:
  try:
    return Path(path).read_bytes()
  except OSError as error:
    raise DataError('data.missing-file', str(path), error.strerror or 'it cannot be read',
                    'give the path of a tokenizer.model') from None


def _parse(path: Path, data: bytes) -> sentencepiece.SentencePieceProcessor:
  try:
    model = sentencepiece.SentencePieceProcessor(model_proto=data)
    if model.get_piece_size():
      return model
  except (RuntimeError, OSError):
    pass
  raise DataError('tokenizer.damaged', f'{path}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}',
                  'it is no SentencePiece model', 'delete its folder and launch again to make it anew')


def spelled(table: Sequence[bytes], ids: Sequence[int], where: str) -> bytes:
  """The bytes of ids, one after another, of which each stands in the table. Raises: DataError for an id that is not there."""
  if len(ids) and not 0 <= min(ids) <= max(ids) < len(table):
    raise DataError('tokenizer.id-out-of-range', f'token id {min(ids) if min(ids) < 0 else max(ids)}',
                    f'ids of {where} are 0 to {len(table) - 1}', 'use the tokenizer that the ids were made with')
  return b''.join([table[i] for i in ids])


def check_lossless(tokenizer: Tokenizer, where: str, texts: Iterable[str] = HARD) -> None:
  """Returns when every text comes back as it was, through no control id.

  Raises: DataError that names the first text that does not.
  """
  for text in texts:
    ids = tokenizer.encode(text)
    back = tokenizer.decode(ids)
    if back != text or any(tokenizer.bytes_of[i] == 0 for i in ids):
      raise DataError('tokenizer.not-lossless', f'{where}: {text[:60]!r} comes back as {back[:60]!r}',
                      'text must survive encoding, and never turn into a control token',
                      'train it with byte fallback and without normalisation or dummy prefix, as Vocabulary does')


def stream_text(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
  """The text of ids as they come; a character is held back until all of its bytes are there."""
  decoder = codecs.getincrementaldecoder('utf-8')('replace')
  for i in ids:
    if text := decoder.decode(tokenizer.decode_bytes([i])):
      yield text
  if rest := decoder.decode(b'', final=True):
    yield rest


def train_bpe(texts: Iterable[str], size: int, coverage: float = 0.9995) -> bytes:
  """A SentencePiece model of `size` pieces: control tokens, 256 bytes, and the merges of byte-pair encoding.

  Sennrich et al. 2016; Kudo & Richardson 2018. The same texts give the same bytes: words are counted, put in order and
  merged by one thread. Characters beyond `coverage` of the text have no piece of their own and are written as bytes.
  Raises: DataError without text; ConfigError with the nearest size that would do.
  """
  counts = _ordered(_count(texts))
  if not counts:
    raise DataError('data.no-text', 'the training texts', 'they hold no text at all', 'check the sources of the corpus')
  written = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f'{word}\t{count}' for word, count in counts), input_format='tsv', model_writer=written,
        model_type='bpe', vocab_size=size, character_coverage=coverage, byte_fallback=True, num_threads=1,
        normalization_rule_name='identity', remove_extra_whitespaces=False, add_dummy_prefix=False,
        allow_whitespace_only_pieces=True, split_digits=True, max_sentence_length=1 << 16, minloglevel=2,
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece=PAD, bos_piece=BOS, eos_piece=EOS, unk_piece=UNK,
        control_symbols=list(CONTROLS[4:]))
  except RuntimeError as error:
    raise _size_error(size, str(error)) from None
  return written.getvalue()


def _count(texts: Iterable[str]) -> Counter[str]:
  counts: Counter[str] = Counter()
  for text in texts:
    counts.update(LEARNT.findall(text))
    if len(counts) > WORDS_COUNTED:
      counts = Counter(dict(_ordered(counts)[:WORDS_COUNTED // 2]))
  return counts


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
  return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _size_error(size: int, message: str) -> Exception:
  if found := re.search(r'<= (\d+)\.', message):
    return ConfigError('vocabulary.too-large', f'size = {size}', 'the text has not so many different pieces',
                       f'use at most {found[1]}, or more text')
  if found := re.search(r'(\d+) vs (\d+)\.', message):
    return ConfigError('vocabulary.too-small', f'size = {size}', 'control tokens, 256 bytes and the alphabet must fit',
                       f'use at least {found[2]}')
  return DataError('vocabulary.training', message, 'SentencePiece could not train on this text', 'check the corpus')
