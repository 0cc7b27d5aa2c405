"""Credit: known answers of the algorithms on whole lots, and what each leaves alone."""

import numpy as np
import pytest

from align.credit import Above, Best, Everyone, FromCritic, Grouped, Judged, LeaveOneOut

MASK = np.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], np.float32)
REWARDS = np.array([1.0, 0.0, 0.25, 7.0], np.float32)


def judged(group: int, rewards=REWARDS, mask=MASK, kl=0.0, values=None) -> Judged:
  return Judged(np.asarray(rewards, np.float32), mask, np.full(mask.shape, kl, np.float32), values, group)


def test_known_answers_of_groups():
  """Eight answers of which two are right."""
  rewards, mask = np.array([1, 0, 0, 1, 0, 0, 0, 0], np.float32), np.ones((8, 1), np.float32)
  for credit, right, wrong in ((Grouped(), 1.619835, -0.539945), (Grouped('population'), 1.731651, -0.577217),
                               (Grouped('none'), 0.75, -0.25), (LeaveOneOut(), 0.857143, -0.285714)):
    found = np.asarray(credit(judged(8, rewards, mask))['advantage'])[:, 0]
    np.testing.assert_allclose(found, np.where(rewards == 1, right, wrong), rtol=1e-5)


@pytest.mark.parametrize('credit', [Grouped(), LeaveOneOut(), FromCritic()], ids=lambda credit: type(credit).__name__)
def test_nothing_falls_outside_of_answers_and_order_does_not_matter(credit):
  values = np.where(MASK > 0, np.arange(16, dtype=np.float32).reshape(4, 4) / 10, 99)
  found = np.asarray(credit(judged(2, kl=0.1, values=values))['advantage'])
  assert not found[MASK == 0].any()
  order = [2, 3, 0, 1]                               # groups as they are, the other one first
  again = credit(Judged(REWARDS[order], MASK[order], np.full(MASK.shape, 0.1, np.float32), values[order], 2))
  np.testing.assert_allclose(np.asarray(again['advantage']), found[order], rtol=1e-5, atol=1e-6)


def test_the_price_of_distance_is_paid_by_the_answer():
  """RLOO subtracts the whole of it; a critic's estimates place it at the tokens."""
  plain, priced = (np.asarray(LeaveOneOut()(judged(2, [1, 1, 1, 1], kl=kl))['advantage']) for kl in (0.0, 0.1))
  np.testing.assert_allclose(plain, 0, atol=1e-7)
  np.testing.assert_allclose(priced[0, 1:3], -0.1, rtol=1e-5)          # two tokens against one
  np.testing.assert_allclose(priced[1, 1], 0.1, rtol=1e-5)
  credit = FromCritic(decay=0.0, whiten='none')
  found = np.asarray(credit(judged(1, kl=0.1, values=np.zeros_like(MASK)))['advantage'])
  np.testing.assert_allclose(found[2], [0, -0.1, -0.1, 0.15], rtol=1e-5, atol=1e-7)


def test_returns_are_of_advantages_before_whitening():
  values = np.where(MASK > 0, 0.5, 0).astype(np.float32)
  white, plain = (FromCritic(whiten=kind)(judged(1, values=values)) for kind in ('population', 'none'))
  np.testing.assert_array_equal(np.asarray(white['returns']), np.asarray(plain['returns']))
  np.testing.assert_allclose(np.asarray(plain['returns'])[MASK > 0], (np.asarray(plain['advantage']) + values)[MASK > 0],
                             rtol=1e-6)
  kept = np.asarray(white['advantage'])[MASK > 0]
  assert abs(kept.mean()) < 1e-6 and kept.std() == pytest.approx(1, rel=1e-5)


def test_chosen_answers_are_text():
  assert np.asarray(Best()(judged(2))['mask']).any(1).tolist() == [True, False, False, False]      # the last has no token
  assert np.asarray(Best()(judged(2, [1, 1, 0, 0]))['mask']).any(1).tolist() == [True, False, True, False]
  assert np.asarray(Above(0.25)(judged(2))['mask']).any(1).tolist() == [True, False, True, False]
  np.testing.assert_array_equal(Everyone()(judged(1))['mask'], MASK)
