"""Every token is scored exactly once, with the context that is promised, whatever the cut."""

import numpy as np
import pytest

from model.errors import ConfigError
from train.eval.windows import Windows, batches

SIZES = [[2], [9], [10], [30, 2, 5, 9, 17, 1, 40], [3] * 20, [0, 1, 2]]


def documents(sizes):
  """Documents whose tokens say which they are: 1000 * document + place."""
  return [np.arange(size) + 1000 * i for i, size in enumerate(sizes)]


@pytest.mark.parametrize('sizes', SIZES)
@pytest.mark.parametrize('length, stride', [(8, 8), (8, 4), (8, 1), (1, 1), (64, 16)])
def test_each_target_once_and_in_its_context(sizes, length, stride):
  seen = []
  for row in Windows(length, stride).rows(documents(sizes)):
    assert all(column.shape == (length + 1,) for column in row.values())
    for place in np.flatnonzero(row['mask']):
      token, document = row['tokens'][place], row['document'][place]
      assert token // 1000 == document
      inside = (row['segments'][:place] == row['segments'][place]).sum()     # tokens of the same window before it
      start = place - inside
      assert (row['tokens'][start:place + 1] == np.arange(token - inside, token + 1)).all()
      assert inside >= min(token % 1000, length - stride + 1)
      seen.append(int(token))
  assert sorted(seen) == [t for document in documents(sizes) for t in document[1:].tolist()]


def test_windows_share_rows_and_padding_is_nothing():
  rows = list(Windows(8, 8).rows(documents([3, 4, 5])))
  assert [row['segments'].tolist() for row in rows] == [[1, 1, 1, 2, 2, 2, 2, 0, 0], [1] * 5 + [0] * 4]
  assert (rows[0]['document'][7:] == -1).all() and (rows[0]['mask'][7:] == 0).all()
  assert rows[0]['mask'].tolist() == [0, 1, 1, 0, 1, 1, 1, 0, 0]


def test_all_batches_have_one_shape_and_the_filling_weighs_nothing():
  rows = list(Windows(4, 4).rows(documents([5] * 7)))
  lots = list(batches(rows, 3))
  assert [lot['tokens'].shape for lot in lots] == [(3, 5)] * 3
  assert sum(lot['mask'].sum() for lot in lots) == sum(row['mask'].sum() for row in rows)
  assert (lots[-1]['segments'][1:] == 0).all() and (lots[-1]['document'][1:] == -1).all()


@pytest.mark.parametrize('stride', [0, 9])
def test_a_stride_that_would_leave_tokens_out_is_refused(stride):
  with pytest.raises(ConfigError, match=r'1 to 8'):
    Windows(8, stride)
