"""What is hidden of a row: the right share of text, never control tokens, anew each time, and never nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ConfigError
from train.data.masking import Corrupt, Masking

BYTES_OF = np.array([0] * 8 + [1] * 92, np.int32)     # ids 0 to 7 are control tokens
MASK = 4


def corrupt(tokens, segments=None, record=0, seed=0, masking=Masking()) -> dict:
  tokens = np.asarray(tokens, np.int32)
  segments = np.ones_like(tokens) if segments is None else np.asarray(segments, np.int32)
  return Corrupt(masking, seed, BYTES_OF, MASK)({'tokens': tokens, 'segments': segments, 'record': np.int32(record)})


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


@pytest.mark.parametrize('fields', [dict(rate=0.0), dict(rate=1.5), dict(hidden=0.9, replaced=0.2), dict(hidden=-0.1)])
def test_settings_that_cannot_be(fields):
  with pytest.raises(ConfigError, match='masking'):
    Masking(**fields)
