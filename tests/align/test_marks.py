"""Marks lie on just the tokens that have a byte of what is found, in any script, wherever in a token a find begins."""

from dataclasses import replace

import numpy as np
import pytest

from align.forbidden import Forbidden, HowOften, Patterns, Personal
from align.marks import Marked, mark, marked, places
from align.questions import Question
from model.errors import ConfigError
from tests.data.fake_corpus import made
from tests.data.noticed import check_noticed

YEAR = Patterns((r'\b1790\b',))
TEXTS = ['the year 1790 was', 'année 1790: naïve!', '1790', 'in (1790) and 1790.', '\U0001f680\U0001f680 1790\u2581',
         'a17901790', '']
CASES = [(YEAR, text) for text in TEXTS] + [
  (Patterns(('aï',)), 'naïve naïve'), (Patterns(('tate',)), 'The state of the union states,'),
  (Patterns(('ŏ', 'é')), 'éée\u0301 ŏ'),
  (Patterns((r'e s', 'the')), 'the state of the states'), (Personal(('email',)), 'to ann.lee@mail.example.org, 1790'),
  (Personal(('card',)), 'card 4111 1111 1111 1111 and 4111 1111 1111 1112')]


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """(tokens, store, tokenizer)."""
  tokens, store = made(tmp_path_factory.mktemp('marks'))
  return tokens, store, tokens.vocabulary.load(store)


def by_hand(content, tokenizer, ids) -> list[int]:
  """Byte by byte: which token a byte is of, and which bytes are found."""
  text = tokenizer.decode(ids)
  owner = [place for place, id in enumerate(ids) for _ in range(tokenizer.bytes_of[id])]
  wanted = {owner[byte] for begin, end in content.finds(text)
            for byte in range(len(text[:begin].encode()), len(text[:end].encode()))}
  return [int(place in wanted) for place in range(len(ids))]


@pytest.mark.parametrize('content, text', CASES, ids=str)
def test_marks_are_exact(world, content, text):
  _, _, tokenizer = world
  ids = np.array(tokenizer.encode(text), np.int64)
  found = mark(content, tokenizer, ids).tolist()
  assert found == by_hand(content, tokenizer, ids.tolist())
  assert any(found) == any(True for _ in content.finds(text))


def test_a_find_that_begins_and_ends_within_tokens_marks_them_whole(world):
  """Some of these tokens are longer than the find, and some find has more tokens than one."""
  _, _, tokenizer = world
  ids = np.array(tokenizer.encode(' state of the'))
  texts = [tokenizer.decode([id]) for id in ids.tolist()]
  assert any(len(text) > 2 for text in texts)
  inner = texts[0][1]
  assert mark(Patterns((f'(?<={texts[0][0]}){inner}',)), tokenizer, ids)[0] == 1


def test_control_tokens_part_texts_and_are_never_marked(world):
  _, _, tokenizer = world
  one, two = tokenizer.encode('17'), tokenizer.encode('90')
  ids = np.array([tokenizer.bos, *one, *two, tokenizer.eos])
  assert mark(YEAR, tokenizer, ids).tolist() == [0, *[1] * (len(ids) - 2), 0]
  assert not mark(YEAR, tokenizer, np.array([*one, tokenizer.eos, *two])).any()


def test_bytes_that_are_no_character_are_counted_as_one_each(world):
  """A document that was cut within a character: what follows is still found in its place."""
  _, _, tokenizer = world
  part = tokenizer.encode('\U0001f680')[:-1]
  assert len(part) > 1
  ids = np.array([*part, *tokenizer.encode(' 1790 x')])
  marks = mark(YEAR, tokenizer, ids)
  assert ''.join(tokenizer.decode([id]) for id in ids[marks > 0].tolist()).strip() == '1790'
  assert places('aé\u0800\udcf0\U0001f680').tolist() == [0, 1, 3, 6, 7, 11]


def test_marks_lie_beside_the_tokens_of_rows_and_a_change_is_found(world):
  tokens, store, tokenizer = world
  dated = marked(tokens, YEAR)
  store.make(dated)
  plain, opened = tokens.open(store, 'train'), dated.open(store, 'train')
  assert opened.sha256 != plain.sha256 and opened.marks.sum() > 0 and opened.masked().marks is opened.marks
  for begin, end in zip(opened.offsets.tolist(), opened.offsets[1:].tolist()):
    np.testing.assert_array_equal(opened.marks[begin:end], mark(YEAR, tokenizer, opened.ids[begin:end]))
  check_noticed(store.find(dated) / 'train.forbidden.npy', lambda: dated.open(store, 'train'))
  with pytest.raises(ConfigError, match=r'forbidden\.other-tokens'):
    replace(dated, vocabulary=replace(tokens.vocabulary, size=350))
  assert isinstance(dated, Marked)


def test_costs_of_answers():
  any_of, count = Forbidden(Patterns((r'\d', 'x'))), HowOften(Patterns((r'\d', '[0-4]')))
  ask = Question('q', ())
  assert [any_of.score(ask, text) for text in ('', 'a', '12', 'x')] == [0, 0, 1, 1]
  assert [count.score(ask, text) for text in ('', 'a', '12', '1 9')] == [0, 0, 2, 2]      # a place counts once
  assert Forbidden(Personal(('email',))).score(ask, 'ann@mail.example.org') == 1


@pytest.mark.parametrize('patterns, id', [(('(',), 'forbidden.bad-pattern'), (('a*',), 'forbidden.empty-pattern'),
                                          ((), 'config.bad-value')], ids=str)
def test_patterns_that_cannot_be_are_refused(patterns, id):
  with pytest.raises(ConfigError) as caught:
    Patterns(patterns)
  assert caught.value.id == id
