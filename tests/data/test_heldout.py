"""Each held-out token is scored once, after as much of its document as the windows promise."""

from collections import Counter

import numpy as np
import pytest

from model.errors import ConfigError, DataError
from tests.data.fake_corpus import made
from train.data.heldout import Heldout, Windows
from train.data.masking import Masking
from train.data.mixture import Mixture, Share
from train.data.rows import Rows


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  return made(tmp_path_factory.mktemp('runs'))


def scored(windows: Windows) -> Counter:
  """How often each place of the stream is scored, with the context it had in its document."""
  found = Counter()
  for index in range(len(windows)):
    row = windows[index]
    assert row['mask'][0] == 0
    for place in np.flatnonzero(row['mask']):
      context = int((row['segments'][:place] == row['segments'][place]).sum())
      found[index * windows.stride + int(place), context] += 1
  return found


@pytest.mark.parametrize('length, stride', [(16, 16), (16, 4), (7, 1), (16, 5), (5000, 5000), (5000, 1), (1, 1)])
def test_each_token_is_scored_once_with_its_context(shared, length, stride):
  tokens = shared[0].open(shared[1], 'heldout')
  found = scored(Windows(tokens, None, length, stride))
  wanted = set(range(len(tokens.ids))) - set(tokens.offsets.tolist())
  assert set(found.values()) == {1} and {place for place, _ in found} == wanted and len(found) == len(wanted)
  begins = tokens.offsets[np.searchsorted(tokens.offsets, [place for place, _ in found], 'right') - 1]
  for (place, context), begin in zip(found, begins, strict=True):
    assert context >= min(place - begin, length - stride)


def test_batches_are_full_and_the_filling_counts_nothing(shared):
  rows = Heldout([Windows(shared[0].open(shared[1], 'heldout'), None, 16, 16)])
  batches = list(rows.batches(8))
  assert all(batch['tokens'].shape == (8, 17) for batch in batches) and len(rows) % 8
  assert sum(batch['mask'].sum() for batch in batches) == sum(row['mask'].sum() for row in rows)
  last = batches[-1]
  assert not last['segments'][len(rows) % 8:].any() and not last['mask'][len(rows) % 8:].any()


def test_so_many_rows_are_spread_evenly_and_stay_the_same(shared):
  tokens, store = shared
  every, some = Rows(tokens, 16).heldout(store), Rows(tokens, 16).heldout(store, rows=5)
  assert len(some) == 5 and [place for _, place in some.places] == [i * len(every) // 5 for i in range(5)]
  assert len(Rows(tokens, 16).heldout(store, rows=10**6)) == len(every)


def test_shares_of_a_mixture_are_scored_in_turn(shared):
  tokens, store = shared
  mixture = Mixture((Share(tokens, 1.0, source='odd'), Share(tokens, 9.0, source='even')))
  mixed, whole = (sum(row['mask'].sum() for row in Rows(each, 16).heldout(store)) for each in (mixture, tokens))
  assert mixed == whole > 0


def test_masked_rows_are_the_same_each_time(shared):
  tokens, store = shared
  rows = Rows(tokens, 16, masking=Masking()).heldout(store)
  first, second = list(rows.batches(4)), list(rows.batches(4))
  assert first[0]['tokens'].shape == (4, 16) and first[0]['mask'].sum() > 0
  assert all((a['tokens'] == b['tokens']).all() for a, b in zip(first, second, strict=True))


def test_nothing_held_out_is_an_error(tmp_path):
  tokens, store = made(tmp_path, count=6, heldout=0)
  with pytest.raises(DataError, match=r'data\.no-heldout'):
    Rows(tokens, 16).heldout(store)


@pytest.mark.parametrize('stride', [0, 17])
def test_strides_that_cannot_be(shared, stride):
  with pytest.raises(ConfigError, match=f'stride = {stride}'):
    Heldout([Windows(shared[0].open(shared[1], 'heldout'), None, 16, stride)])
