"""Rewards: a verifier is right, and a reward that fails is named with what it failed on."""

import logging
import time
from dataclasses import dataclass

import numpy as np
import pytest

from align.questions import FromTask, Question
from align.rewards import PATIENCE, Answer, Jury, Length, Part, TextReward, Verified
from align.tasks import Guesses, Gym, Largest, Problem, Sums
from model.errors import ConfigError, DataError, UserError
from train.data.document import held_out


@dataclass(frozen=True)
class Odd(TextReward):
  """Does to one answer what a user's reward might do."""

  fault: str

  def score(self, question: Question, answer: str) -> float:
    if answer == 'b':
      match self.fault:
        case 'raises':
          return 1 / 0
        case 'times out by itself':
          raise TimeoutError('the judge did not answer')
        case 'nan' | 'inf':
          return float(self.fault)
        case 'takes too long':
          time.sleep(1.0)
    return 0.7


@dataclass(frozen=True)
class Short(TextReward):
  """Gives a number too few."""

  def score(self, question: Question, answer: str) -> float:
    return 0.0

  def open(self, setting):
    return lambda answers: [0.0] * (len(answers) - 1)


def answers(*texts: str) -> list[Answer]:
  task = Sums()
  question = FromTask(task).open(None, 'train')(0)
  return [Answer(question, np.zeros(3, np.int32), np.zeros(len(text) + 1, np.int32), text, 'eos') for text in texts]


@pytest.mark.parametrize('reward, id, words', [
  (Odd('raises'), 'reward.raised', ('ZeroDivisionError', 'train 0')),
  (Odd('times out by itself'), 'reward.raised', ('TimeoutError', 'did not answer')),
  (Odd('nan'), 'reward.not-finite', ("reward 'odd' = nan", "the answer 'b'")),
  (Odd('inf'), 'reward.not-finite', ("reward 'odd' = inf", "the answer 'b'")),
  (Odd('takes too long'), 'reward.slow', ('0.2 s', '3 answers')),
  (Short(), 'reward.count', ('3 answers',)),
], ids=str)
def test_a_reward_that_fails_is_named(reward, id, words):
  jury = Jury((Part('odd', reward, seconds=0.2),), None)
  with pytest.raises(UserError) as caught:
    jury(answers('a', 'b', 'c'))
  assert caught.value.id == id and all(word in str(caught.value) for word in words)


def test_a_reward_that_is_always_the_same_is_told(caplog):
  jury = Jury((Part('flat', Odd('nothing')), Part('length', Length(-1.0))), None)
  with caplog.at_level(logging.WARNING):
    for _ in range(PATIENCE - 1):
      jury(answers('a', 'bb'))
    assert not caplog.records
    jury(answers('a', 'bb'))
  assert len(caplog.records) == 1 and "reward 'flat' gave 0.7 to each of 2 answers" in caplog.text


def test_a_sum_is_weighed_in_float32():
  jury = Jury((Part('flat', Odd('nothing')), Part('length', Length(-0.5, free=2), 2.0)), None)
  found = jury(answers('a', 'bcd'))
  assert found['flat'].dtype == np.float32 and found['length'].tolist() == [0, -1]
  np.testing.assert_allclose(jury.total(found), [0.7, -1.3], rtol=1e-6)


@pytest.mark.parametrize('task, right, wrong', [(Largest(), '{}', '{} or 3'), (Sums(), 'It is {}.', '-{}')], ids=str)
def test_verifiers_know_right_from_wrong(task, right, wrong):
  for number in range(50):
    problem = task.problem(number)
    assert task.grade(problem, right.format(problem.solution)) == 1
    assert task.grade(problem, wrong.format(problem.solution)) == 0 == task.grade(problem, '')
    assert problem == task.problem(number)
  assert len({task.problem(number) for number in range(50)}) > 30


def test_a_verifier_without_a_problem_says_so():
  jury = Jury((Part('right', Verified(Sums())),), None)
  with pytest.raises(DataError, match=r'reward\.no-problem'):
    jury([answers('a')[0]._replace(question=Question('q7', ()))])


def test_questions_are_held_out_by_what_they_say():
  questions = {split: FromTask(Largest(), heldout_modulo=5).open(None, split) for split in ('train', 'heldout')}
  texts = {split: {each(number).messages[-1].content for number in range(200)} for split, each in questions.items()}
  assert texts['train'].isdisjoint(texts['heldout']) and len(texts['heldout']) > 100
  assert all(held_out(text, 5) == (split == 'heldout') for split, some in texts.items() for text in some)
  assert questions['train'](3) == FromTask(Largest(), heldout_modulo=5).open(None, 'train')(3)


def test_guesses_know_the_form_and_not_the_answer():
  task = Largest()
  documents = list(Guesses(task, 400).read())
  right = sum(task.grade(task.problem(number), document.text.split('"')[-2]) for number, document in enumerate(documents))
  assert 0.15 < right / 400 < 0.35


def test_a_gym_that_is_not_there_is_named():
  try:
    import reasoning_gym  # noqa: F401
  except ImportError:
    with pytest.raises(ConfigError, match=r'task\.no-gym'):
      Gym('gcd').problem(0)
    return
  problem = Gym('gcd').problem(3)
  assert isinstance(problem, Problem) and Gym('gcd').grade(problem, 'no number') == 0
