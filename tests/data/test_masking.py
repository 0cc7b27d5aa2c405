"""What is hidden of a row: the right share of text, never control tokens, anew each time, and never nothing.

Ids 8 to 99 are text; where words count, those that leave 0 when divided by 4 begin one.
"""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ConfigError
from model.tokenizer_words import Edges, edges_of
from train.artifact import digest
from train.data.masking import Corrupt, Masking, Span, Token, Word, lengths
from train.data.pipeline import fingerprint
from train.data.shuffle import key

BYTES_OF = np.array([0] * 8 + [1] * 92, np.int32)     # ids 0 to 7 are control tokens
MASK = 4
EDGES = Edges(np.arange(100) % 4 == 0, np.zeros(100, bool))
UNITS = [Word(), Span(), Span(0.5, 3)]


def corrupt(tokens, segments=None, record=0, seed=0, masking=Masking()) -> dict:
  tokens = np.asarray(tokens, np.int32)
  segments = np.ones_like(tokens) if segments is None else np.asarray(segments, np.int32)
  edges = None if masking.unit == Token() else EDGES
  return Corrupt(masking, seed, BYTES_OF, MASK, edges)({'tokens': tokens, 'segments': segments, 'record': np.int32(record)})


def text(count: int) -> np.ndarray:
  return np.arange(count) % 92 + 8


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 99), min_size=2, max_size=40), st.integers(0, 40), st.sampled_from([0, 50]),
       st.floats(0.01, 1))
def test_only_text_is_chosen_and_at_least_one(tokens, padding, pad, rate):
  """Padding is known by its segment, even where it is written with the id of a word."""
  padded = [*tokens, *[pad] * padding]
  row = corrupt(padded, [1] * len(tokens) + [0] * padding, masking=Masking(rate=rate))
  chosen = row['mask'] > 0
  eligible = np.array([token >= 8 for token in tokens[:len(padded) - 1]])
  assert (row['targets'] == padded[:-1]).all() and len(row['tokens']) == len(padded) - 1
  assert not chosen[:len(eligible)][~eligible].any() and not chosen[len(eligible):].any()
  assert chosen.sum() == (max(1, round(rate * eligible.sum())) if eligible.any() else 0)
  assert (row['tokens'][~chosen] == row['targets'][~chosen]).all()
  assert np.isin(row['tokens'][chosen], [MASK, *range(8, 100)]).all()


def test_eighty_ten_ten():
  rows = [corrupt(text(401), record=record) for record in range(250)]
  chosen, tokens, targets = (np.concatenate([row[name] for row in rows]) for name in ('mask', 'tokens', 'targets'))
  tokens, targets = tokens[chosen > 0], targets[chosen > 0]
  assert len(tokens) == 250 * 60
  hidden, kept = (tokens == MASK).mean(), (tokens == targets).mean()
  # a random token is the old one once in 92 times; bounds of five standard deviations
  assert hidden == pytest.approx(0.8, abs=5 * 0.0033)
  assert kept == pytest.approx(0.1 + 0.1 / 92, abs=5 * 0.0025)


def test_every_place_and_every_text_token_has_its_turn():
  rows = [corrupt(text(101), record=record, masking=Masking(hidden=0.0, replaced=1.0)) for record in range(400)]
  often = sum(row['mask'] for row in rows)
  assert often == pytest.approx(np.full(100, 60.0), abs=5 * 7.2)
  replaced = np.concatenate([row['tokens'][row['mask'] > 0] for row in rows])
  assert set(replaced.tolist()) == set(range(8, 100))


def test_a_function_of_seed_and_record():
  again = [corrupt(text(100), record=3, seed=1)['tokens'].tolist() for _ in range(2)]
  assert again[0] == again[1]
  assert again[0] != corrupt(text(100), record=4, seed=1)['tokens'].tolist()
  assert again[0] != corrupt(text(100), record=3, seed=2)['tokens'].tolist()


def test_tokens_are_drawn_as_before_there_were_words():
  """To the bit, and so is what tells pipelines and experiments apart."""
  said = hashlib.sha256()
  for record in range(20):
    row = corrupt(text(130), record=record, seed=7)
    said.update(row['tokens'].astype('<i4').tobytes() + row['mask'].astype('<f4').tobytes())
  assert said.hexdigest() == '5d0654fdacadee1cad20ceb06bfc9a78933729ea5aaeb8ce63d70ccd701ec959'
  definition = Corrupt(Masking(), 7, BYTES_OF, MASK).definition
  assert fingerprint(definition) == 'bbdfad4cd9dae8e5227cdeaa10bcbdaf248e0a40a42fa3a74e5f6da75b4e3bd7'
  words = Corrupt(Masking(unit=Word()), 7, BYTES_OF, MASK, EDGES).definition
  assert words['unit']['type'].endswith('Word') and digest(Masking()) != digest(Masking(unit=Word()))
  assert digest(Masking()) == '5c4844e860a845492c66c1e01cb25fda0f48d313ffaa6965880cf180939e82de'


def words_of(tokens, segments) -> list[list[int]]:
  """The places of each word of a row, told one place after another."""
  found: list[list[int]] = []
  for i, (token, segment) in enumerate(zip(tokens, segments)):
    if token < 8 or segment == 0:
      continue
    goes_on = found and found[-1][-1] == i - 1 and segments[i - 1] == segment and token % 4
    found = [*found[:-1], [*found[-1], i]] if goes_on else [*found, [i]]
  return found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=2, max_size=60), st.sampled_from(UNITS),
       st.floats(0.01, 1), st.integers(0, 9))
def test_words_are_chosen_whole_and_within_the_budget(row, unit, rate, record):
  """But for one that alone is beyond the budget, of which as much is chosen as that allows; documents part words."""
  tokens, segments = [token for token, _ in row], np.cumsum([begins for _, begins in row])
  found = corrupt(tokens, segments, record, masking=Masking(rate=rate, unit=unit))
  words = words_of(tokens[:-1], segments[:-1])
  eligible = sum(map(len, words))
  budget, total = (max(1, round(rate * eligible)) if eligible else 0), found['mask'].sum()
  parts = [found['mask'][word].mean() for word in words]
  left = [len(word) for word, part in zip(words, parts) if part == 0]
  assert total <= budget and total == sum(found['mask'][word].sum() for word in words)
  if any(0 < part < 1 for part in parts):
    assert sum(part > 0 for part in parts) == 1 and total == budget < min(map(len, words))
  else:
    assert (total > 0) == (eligible > 0) and (isinstance(unit, Span) or all(size > budget - total for size in left))


@pytest.mark.parametrize('unit', UNITS)
def test_the_share_is_kept_and_every_word_has_its_turn(unit):
  """Words of four tokens, beside some of one that fill what is left of the budget of 60."""
  row = np.where(np.arange(401) % 8 < 4, text(401), 8)
  rows = [corrupt(row, record=record, masking=Masking(unit=unit)) for record in range(300)]
  assert np.mean([each['mask'].sum() for each in rows]) > 59 and max(each['mask'].sum() for each in rows) == 60
  often = sum(each['mask'] for each in rows)
  assert often.min() > 5 and np.mean(often[4:] != np.roll(often, 1)[4:]) > 0.3


def test_spans_are_geometric_and_share_their_fate():
  """Their mean is 3.8 words (Joshi et al. 2020). With an edge at each token what is chosen together is told by its fate."""
  drawn = lengths(Span(), 200_000, key('a'))
  wanted = 0.2 * 0.8 ** np.arange(10)
  assert drawn.mean() == pytest.approx(3.8, abs=0.03) and (drawn.min(), drawn.max()) == (1, 10)
  np.testing.assert_allclose(np.bincount(drawn)[1:] / 200_000, wanted / wanted.sum(), atol=0.004)
  assert (lengths(Word(), 5, 0) == 1).all() and set(lengths(Span(1.0), 50, 0).tolist()) == {1}
  rows = [corrupt(np.full(401, 8), record=record, masking=Masking(unit=unit, hidden=0.5, replaced=0.0))
          for unit in (Word(), Span()) for record in range(100)]
  changes = [np.diff(row['tokens'])[(row['mask'][1:] * row['mask'][:-1]) > 0] != 0 for row in rows]
  apart, together = (np.concatenate(part).mean() for part in (changes[:100], changes[100:]))
  assert apart == pytest.approx(0.5, abs=0.1) and together < 0.2


def test_where_words_begin_and_end():
  """A blank or a line break begins one, and what follows a line break or a blank at the end; blanks alone end none."""
  edges = edges_of([b'', b' a', b'b', b'\n', b' ', b'c ', b' \n', b'\xe2'])
  assert edges.begins_V.tolist() == [False, True, False, True, True, False, True, False]
  assert edges.ends_V.tolist() == [False, False, False, True, False, True, True, False]


@pytest.mark.parametrize('fields', [dict(stop=0.0), dict(stop=1.5), dict(longest=0)])
def test_spans_that_cannot_be(fields):
  with pytest.raises(ConfigError, match='unit'):
    Span(**fields)


@pytest.mark.parametrize('fields', [dict(rate=0.0), dict(rate=1.5), dict(hidden=0.9, replaced=0.2), dict(hidden=-0.1)])
def test_settings_that_cannot_be(fields):
  with pytest.raises(ConfigError, match='masking'):
    Masking(**fields)
