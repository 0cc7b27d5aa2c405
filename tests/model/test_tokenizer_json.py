"""Published kinds of tokenizers: the ids of their own library, no text lost without a word, no text a control token.

The library as it comes is the reference.
"""

from string import ascii_letters

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from model.errors import DataError
from model.tokenizer import HARD, SPACE, stream_text
from model.tokenizer_json import TokenizerJson
from tests.model.chats import controls
from tests.model.published import TEXTS
from tests.model.tokenizer_kinds import (
  BLANK_FIRST,
  KINDS,
  LOSSLESS,
  LOSSY,
  PARTS,
  SPECIALS,
  STRINGS,
  kinds,
  library,
  ours,
  reference,
)


@kinds
def test_ids_are_the_librarys(kind):
  """Where it puts a blank before a text only if none is there, texts that begin with one are told from others: below."""
  begins = ' ' if kind in ('with a blank', 'mistral') else '\0'
  for text in [*TEXTS, *(each for each in HARD if SPACE not in each and '<' not in each)]:
    if not text.startswith(begins):
      assert ours(kind).encode(text) == reference(kind, text), text


@kinds
def test_what_loses_text_is_found_out(kind):
  assert ours(kind).lossless == (kind not in LOSSY) == (not ours(kind).loss)


@pytest.mark.parametrize('kind, sign', [('gpt-2', '\u0120'), ('llama-2', SPACE), ('t5', SPACE), ('bert', ''), ('words', '')])
def test_words_begin_where_the_vocabulary_marks_it(kind, sign):
  """By the piece's first character, or in WordPiece wherever there are no two hashes, the unknown word among them."""
  vocab, edges = library(kind).get_vocab(), ours(kind).edges
  pieces = {piece: i for piece, i in vocab.items() if piece[0] in f'{sign}#{ascii_letters}'}
  begins = {piece for piece, i in pieces.items() if edges.begins_V[i]}
  assert begins == {piece for piece in pieces if (piece[0] == sign if sign else not piece.startswith('##'))} != set()
  assert edges.begins_V[vocab['<unk>']] == (not sign) and not edges.begins_V[ours(kind).bos]
  assert edges.ends_V[ours(kind).encode('one\ntwo')].any() == bool(sign)


@pytest.mark.parametrize('kind', LOSSLESS)
@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.text(st.characters(exclude_categories=['Cs'])), st.lists(st.sampled_from(PARTS)).map(''.join)))
def test_any_text_comes_back(kind, text):
  tokenizer = ours(kind)
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  assert not controls(tokenizer, ids)
  assert tokenizer.bytes_of[ids].sum() == len(text.encode()) + (kind in BLANK_FIRST and bool(text))
  assert b''.join(tokenizer.decode_bytes([i]) for i in ids) == tokenizer.decode_bytes(ids)


@kinds
def test_no_text_becomes_a_control_token(kind):
  """And the library, as it comes, makes one of each name."""
  tokenizer = ours(kind)
  for text in STRINGS:
    assert not {*tokenizer.encode(text)} & {*tokenizer.controls.values()}, text
  for name in tokenizer.controls:
    assert tokenizer.controls[name] in reference(kind, f'a {name} b')


@pytest.mark.parametrize('kind', ['t5', 'words'])
def test_not_to_look_for_added_tokens_is_not_enough(kind):
  """Some algorithms find a control token among their pieces, without the library's own rule that looks for added ones."""
  loose = tokenizers.Tokenizer.from_str(library(kind).to_str())
  loose.encode_special_tokens = True
  assert ours(kind).eos in loose.encode('a </s> b').ids
  assert ours(kind).eos not in ours(kind).encode('a </s> b')


@pytest.mark.parametrize('kind', ['llama-2', 'mistral', 'gemma'])
def test_the_sign_for_a_space_is_a_character_of_its_own(kind):
  tokenizer, text = ours(kind), f'{SPACE} a{SPACE}b {SPACE}{SPACE}'
  assert tokenizer.decode(tokenizer.encode(text)) == text
  assert library(kind).decode(reference(kind, text)) != text


@pytest.mark.parametrize('kind', ['with a blank', 'mistral'])
def test_a_text_that_begins_with_a_blank_is_not_one_that_does_not(kind):
  assert ours(kind).encode('a') == reference(kind, 'a') == reference(kind, ' a') != ours(kind).encode(' a')


def test_no_blank_is_put_behind_an_added_token():
  built = KINDS['llama-2']()
  built.add_tokens([AddedToken('<tool>', normalized=False)])
  tokenizer, text = TokenizerJson(built.to_str().encode(), SPECIALS), 'a<tool>b'
  assert tokenizer.lossless and tokenizer.size - 1 in tokenizer.encode(text)
  assert built.decode(built.encode(text).ids) == 'a<tool> b'


@kinds
def test_ids_stand_for_what_the_library_decodes(kind):
  tokenizer = ours(kind)
  for text in TEXTS:
    ids = tokenizer.encode(text)
    if kind not in ('bert', 'words', 't5'):
      assert tokenizer.decode(ids) == library(kind).decode(ids).removeprefix(' ' if kind == 'with a blank' else '')
  assert [tokenizer.bytes_of[i] for i in tokenizer.controls.values()] == [0] * len(tokenizer.controls)
  assert tokenizer.size == library(kind).get_vocab_size() == len(tokenizer.table)
  assert (tokenizer.pad, tokenizer.bos, tokenizer.eos) == (0, 1, 2)


@pytest.mark.parametrize('kind', ['bert', 't5', 'words'])
def test_the_unknown_token_is_text(kind):
  tokenizer = ours(kind)
  ids = tokenizer.encode('\U0001f9ff')
  assert '<unk>' not in tokenizer.controls and '\ufffd' in tokenizer.decode(ids) and tokenizer.bytes_of[ids].all()
  with pytest.raises(DataError) as caught:
    TokenizerJson(library(kind).to_str().encode(), SPECIALS._replace(pad='<unk>'))
  assert caught.value.id == 'tokenizer.unknown-is-control'


def test_words_of_word_pieces():
  tokenizer = ours('bert')
  assert tokenizer.decode(tokenizer.encode('Hello, World')) == 'hello , world'


def test_a_stream_holds_back_half_characters():
  tokenizer = ours('smollm')
  parts = list(stream_text(tokenizer, iter(tokenizer.encode('a \U0001f9ff \u6771'))))
  assert ''.join(parts) == 'a \U0001f9ff \u6771' and '\ufffd' not in ''.join(parts)


def test_ids_and_characters_that_are_none_are_refused():
  for ids in ([3, -1], [ours('gpt-2').size]):
    with pytest.raises(DataError, match=str(ids[-1])):
      ours('gpt-2').decode(ids)
  with pytest.raises(DataError, match=r'U\+D83D.*ab'):
    ours('gpt-2').encode('fine ab\ud83d.')
