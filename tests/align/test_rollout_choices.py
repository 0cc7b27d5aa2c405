"""Which questions and answers of a rollout are learnt from: cut off ones, the best, a teacher's, those that teach something."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from align.credit import Best, Everyone, Grouped
from align.kl import Fixed
from align.rewards import Length, Part
from align.rollout import Charged, Ignored, Kept
from model.errors import ConfigError
from tests.align.rollouts import learner, opened, rollouts, taken
from train.objectives import NextToken


def test_truncated_answers_are_treated_as_was_said(world):
  """All answers of 6 tokens are cut off: charged, their rewards fall alike; ignored, nothing is learnt from them."""
  before, store, vocabulary = world
  found = {}
  for choice in (Kept(), Charged(2.0), Ignored()):
    setting, source, state = opened(learner(before, rollouts(vocabulary, truncated=choice, kl=Fixed(0.0))), store)
    with jax.set_mesh(setting.built.mesh):
      source(state)
    found[type(choice).__name__] = source.buffer
  cut = found['Kept']['seen/truncated'] > 0
  assert cut.sum() > 0
  np.testing.assert_allclose(found['Charged']['seen/reward'], found['Kept']['seen/reward'] - 2.0 * cut)
  assert not found['Ignored']['mask'][cut].any() and found['Kept']['mask'][cut].any()
  assert not found['Ignored']['advantage'][cut].any()


def test_the_best_answers_are_learnt_like_a_text(world):
  before, store, vocabulary = world
  rows = rollouts(vocabulary, credit=Best(), kl=Fixed(0.0), epochs=1)
  setting, source, state = opened(learner(before, rows, objective=NextToken()), store)
  with jax.set_mesh(setting.built.mesh):
    seen = taken(setting, state, source(state))
  best = source.buffer['mask'].any(1).reshape(4, 4)
  rewards = source.buffer['seen/reward'].reshape(4, 4)
  assert best.sum(1).tolist() == [1] * 4 and (rewards[best] == rewards.max(1)).all()
  assert seen['loss'] > 0 and 'reward' in seen


@pytest.mark.campaign
def test_a_teacher_writes_and_the_student_learns(world):
  """Sequence-level distillation: the tokens are the teacher's, whatever the student is."""
  before, store, vocabulary = world
  rows = rollouts(vocabulary, credit=Everyone(), kl=Fixed(0.0), by=before, epochs=1)
  student = learner(before, rows, objective=NextToken(), restore=None, seed=5)
  setting, source, state = opened(student, store)
  same = learner(before, replace(rows, by=None), objective=NextToken())
  _, source_of_itself, own = opened(same, store)
  with jax.set_mesh(setting.built.mesh):
    source(state), source_of_itself(own)
  np.testing.assert_array_equal(source.buffer['tokens'], source_of_itself.buffer['tokens'])
  with pytest.raises(ConfigError, match=r'config\.teacher'):
    learner(before, replace(rows, credit=Grouped()))


@pytest.mark.campaign
def test_questions_that_teach_nothing_give_way(world):
  """With a reward that is the same for all, refilling asks others in vain and then takes what there is."""
  before, store, vocabulary = world
  rows = rollouts(vocabulary, rewards=(Part('none', Length(0.0)),), refill=2, kl=Fixed(0.0))
  setting, source, state = opened(learner(before, rows), store)
  with jax.set_mesh(setting.built.mesh):
    batch = source(state)
    seen = taken(setting, state, batch)
  assert source.asked == 12 and not np.asarray(batch['advantage']).any()
  assert seen['alike'] == 1 and seen['grad_norm'] == 0                   # exactly: nothing divides by nothing


def test_questions_give_way_by_what_is_learnt_from_their_answers(world):
  """Charged, equal rewards may differ and others become alike; where all are ignored nothing is learnt, whatever they got."""
  before, store, vocabulary = world
  rows = rollouts(vocabulary, refill=2, kl=Fixed(0.0))
  setting, source, state = opened(learner(before, rows), store)
  crew, write = source.crew, source.crew.write
  for choice, rewards, cut, asked in (
      (Kept(), (0, 0, 0, 0), (1, 0, 0, 0), 12), (Kept(), (1, 0, 0, 0), (1, 0, 0, 0), 4),
      (Charged(1.0), (0, 0, 0, 0), (1, 0, 0, 0), 4), (Charged(1.0), (1, 0, 0, 0), (1, 0, 0, 0), 12),
      (Ignored(), (1, 0, 0, 0), (1, 0, 0, 0), 4), (Ignored(), (1, 0, 0, 0), (1, 1, 1, 1), 12)):

    def scripted(params, questions, each, rewards=rewards, cut=cut):
      lot, groups = write(params, questions, each), len(questions) // 4
      answers = [answer._replace(reason='length' if late else 'eos') for answer, late in zip(lot.answers, cut * groups)]
      return lot._replace(answers=answers, total_B=np.tile(np.float32(rewards), groups))

    source = replace(rows, truncated=choice).open(setting)
    source.crew, crew.write = crew, scripted
    with jax.set_mesh(setting.built.mesh):
      source(state)
    assert (source.asked, source.buffer['advantage'].any()) == (asked, asked == 4), choice
