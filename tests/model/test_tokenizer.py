"""Every text comes back as it was, and no text becomes a control token."""

import hashlib
import io

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ConfigError, DataError
from model.tokenizer import (
  CONTROLS,
  HARD,
  MASK,
  SPACE,
  SentencePiece,
  _count,
  check_lossless,
  stream_text,
  train_bpe,
)

ENGLISH = ['The people of the States, and the State of the people.\n\nThe year 1790 was good; 1791 was not.\n'] * 20
HOSTILE = [f'{name} {name}{name} a{name} <0x0A><0xE2>x {SPACE} \t<s> </s>' for name in CONTROLS] * 30
SHARP = [*ENGLISH, *HOSTILE, 'for  (i = 0;  i < n;  ++i)\n\n\n        pass\n' * 9, 'naïve café 東京 東京 😀😀']


def foreign(**settings) -> bytes:
  written = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(**dict(
      sentence_iterator=iter(ENGLISH), model_writer=written, model_type='bpe', vocab_size=400, hard_vocab_limit=False,
      byte_fallback=True, normalization_rule_name='identity', remove_extra_whitespaces=False, add_dummy_prefix=False,
      pad_id=3, minloglevel=2) | settings)
  return written.getvalue()


@pytest.fixture(scope='module')
def model() -> bytes:
  return train_bpe(iter(SHARP), 400, coverage=1.0)


@pytest.fixture(scope='module')
def tokenizer(model, tmp_path_factory) -> SentencePiece:
  return opened(model, tmp_path_factory.mktemp('tokenizer'))


def opened(model: bytes, folder) -> SentencePiece:
  path = folder / 'tokenizer.model'
  path.write_bytes(model)
  return SentencePiece(path)


def lossless(tokenizer, text):
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  assert all(tokenizer.bytes_of[i] > 0 for i in ids)
  assert sum(tokenizer.bytes_of[i] for i in ids) == len(text.encode())


@settings(max_examples=400, deadline=None)
@given(st.text(st.characters(exclude_categories=['Cs'])))
def test_any_text_comes_back(tokenizer, text):
  lossless(tokenizer, text)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from([*HARD, *CONTROLS, ' ', '\n', 'the', SPACE, '<0x0A>', '\0', '\u0301', '😀'])))
def test_hard_strings_in_any_order_come_back(tokenizer, parts):
  lossless(tokenizer, ''.join(parts))


def test_every_character_comes_back(tokenizer):
  blocks = (range(0xD800), range(0xE000, 0x11000), range(0x1F000, 0x20000), range(0x10FF00, 0x110000))
  characters = ''.join(chr(i) for block in blocks for i in block)
  lossless(tokenizer, characters)
  lossless(tokenizer, ' '.join(characters[:0x3000]))


def test_a_lone_surrogate_is_refused_and_said(tokenizer):
  with pytest.raises(DataError, match=r'U\+D83D.*ab') as caught:
    tokenizer.encode('fine ab\ud83d.')
  assert caught.value.id == 'data.lone-surrogate'


def test_control_ids_are_fixed_and_silent(tokenizer):
  assert [tokenizer.controls[name] for name in CONTROLS] == list(range(len(CONTROLS)))
  assert (tokenizer.pad, tokenizer.bos, tokenizer.eos) == (0, 1, 2)
  assert tokenizer.decode([tokenizer.bos, *tokenizer.encode('a'), tokenizer.controls[MASK], tokenizer.eos]) == 'a'
  assert np.flatnonzero(tokenizer.bytes_of == 0).tolist() == list(range(len(CONTROLS)))


def test_no_learnt_piece_is_called_as_a_control(tokenizer):
  assert len(set(tokenizer.pieces)) == tokenizer.size == 400
  for text in (*CONTROLS, '<0x0A>'):
    assert len(tokenizer.encode(text)) > 1


def test_two_trainings_give_the_same_bytes(model):
  assert train_bpe(iter(SHARP), 400, coverage=1.0) == model


def test_rare_words_are_forgotten_when_there_are_too_many(monkeypatch):
  monkeypatch.setattr('model.tokenizer.WORDS_COUNTED', 40)
  texts = [*ENGLISH, *(f'x{i}' for i in range(99)), *ENGLISH]
  counts = _count(texts)
  assert len(counts) <= 40 and counts[' people'] == 40 and counts[' the'] == 120


def test_merges_worked_by_hand(tmp_path):
  # ab 5 times, bc 3: 'ab' is merged first; then in 'abc' (2) only ab+c is left, and b+c (1) is rarer than that
  words = 'ab ab ab abc abc bc'
  learnt = opened(train_bpe([words], 16 + 256 + 4 + 4, coverage=1.0), tmp_path).pieces[16 + 256:]
  assert sorted(learnt[-4:]) == ['a', 'b', 'c', SPACE]
  assert learnt[:2] == ['ab', f'{SPACE}ab']


def test_the_memory_of_words_changes_nothing(tokenizer, model):
  """Word by word, remembered or not, gives what SentencePiece gives for the text as a whole."""
  whole = sentencepiece.SentencePieceProcessor(model_proto=model)
  for text in (*ENGLISH[:2], SHARP[-2], SHARP[-1], *HARD, 'a\n \n b   c\n\n\n'):
    if SPACE not in text:
      assert tokenizer.encode(text) == tokenizer.encode(text) == whole.encode(text)


def test_a_model_whose_pieces_reach_over_words_is_read_as_a_whole(tmp_path):
  tokenizer = opened(foreign(split_by_whitespace=False), tmp_path)
  assert any(SPACE in piece[1:] for piece in tokenizer.pieces)
  assert tokenizer.encode('of the people') == tokenizer.model.encode('of the people')
  lossless(tokenizer, f'of the{SPACE}people')


def test_long_words_take_linear_time(tokenizer):
  lossless(tokenizer, 'x' * 300_000 + ' ' * 300_000 + '\n' * 9000)
  assert len(train_bpe(['x' * 200_000 + 'y' * 70_000], 280, coverage=1.0)) > 0


def test_a_stream_holds_back_half_characters(tokenizer):
  text = 'a 😀 東é\u0301'
  parts = list(stream_text(tokenizer, iter(tokenizer.encode(text))))
  assert ''.join(parts) == text and '\ufffd' not in ''.join(parts)
  cut = ''.join(stream_text(tokenizer, tokenizer.encode('😁')[:2]))
  assert cut == '\ufffd'


def test_the_file_is_checked(tmp_path, model):
  path = tmp_path / 'tokenizer.model'
  with pytest.raises(DataError, match=r'data\.missing-file'):
    SentencePiece(path)
  path.write_bytes(model)
  sha = hashlib.sha256(model).hexdigest()
  assert SentencePiece(path, sha).fingerprint == sha
  flipped = bytearray(model)
  flipped[len(model) // 2] ^= 1
  path.write_bytes(flipped)
  with pytest.raises(DataError, match=sha) as caught:
    SentencePiece(path, sha)
  assert caught.value.id == 'tokenizer.damaged'
  path.write_bytes(b'no model at all')
  with pytest.raises(DataError, match=r'tokenizer\.damaged'):
    SentencePiece(path)


@pytest.mark.parametrize('settings_, id', [
  (dict(pad_id=-1), 'tokenizer.no-pad'),
  (dict(eos_id=-1), 'tokenizer.no-eos'),
  (dict(add_dummy_prefix=True), 'tokenizer.not-lossless'),
  (dict(byte_fallback=False), 'tokenizer.not-lossless'),
  (dict(normalization_rule_name='nmt_nfkc'), 'tokenizer.not-lossless'),
])
def test_foreign_models_that_lose_text_are_refused(tmp_path, settings_, id):
  with pytest.raises(DataError) as caught:
    opened(foreign(**settings_), tmp_path)
  assert caught.value.id == id


@pytest.mark.parametrize('size, texts, error, id', [
  (100, ENGLISH, ConfigError, 'vocabulary.too-small'),
  (9000, ENGLISH, ConfigError, 'vocabulary.too-large'),
  (300, [], DataError, 'data.no-text'),
  (300, ['\t\0', ''], DataError, 'data.no-text'),
])
def test_sizes_that_cannot_be(size, texts, error, id):
  with pytest.raises(error) as caught:
    train_bpe(iter(texts), size)
  assert caught.value.id == id


def test_the_nearest_size_does(tmp_path):
  with pytest.raises(ConfigError) as caught:
    train_bpe(ENGLISH, 9000)
  assert len(train_bpe(ENGLISH, int(caught.value.do.split()[3].rstrip(',')))) > 0


def test_ids_out_of_range_are_refused(tokenizer):
  for ids in ([3, -1], [tokenizer.size]):
    with pytest.raises(DataError, match=str(ids[-1])):
      tokenizer.decode(ids)


def test_the_self_test_can_fail(tokenizer):
  class Lossy:
    bytes_of = tokenizer.bytes_of
    encode = staticmethod(lambda text: tokenizer.encode(text.strip()))
    decode = tokenizer.decode

  with pytest.raises(DataError, match=r'tokenizer\.not-lossless'):
    check_lossless(Lossy(), 'here')
