"""The world of the desk: its lessons are true; conduct and judges are measured rightly where the right numbers are known."""

import itertools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from align.ai_preferences import AiPreferences
from align.conduct import Asked, Conduct, Measure, Writing
from align.constitution import Ballot
from align.conversations import from_text
from align.desk import (
  SAID,
  TOLD,
  Breaks,
  Cards,
  Desk,
  Habits,
  HelpfulPairs,
  Lessons,
  Refuses,
  about,
  broken,
  mended,
  spoken,
)
from align.judge import Judge, Said, normalised
from align.judge_report import JudgeReport
from align.preferences import pair_in
from align.principles import read_principles
from align.questions import FromTask, Question
from align.rewards import Verified
from model.chat import Message
from model.errors import ConfigError
from train.artifact import Store
from train.data.document import held_out

PRINCIPLES = read_principles(Path(__file__).parents[2] / 'experiments' / 'constitution' / 'desk.toml')
BALLOT = Ballot('{talk}|{first}|{second}|{prefer}')
LESSONS = Lessons(count=900, principles=PRINCIPLES, ballot=BALLOT)
HABITS = [Habits(*each) for each in itertools.product((True, False), repeat=3)]


@pytest.mark.parametrize('principle', SAID)
def test_mending_an_answer_changes_what_it_should_and_nothing_else(principle):
  for number, habits in itertools.product(range(20), HABITS):
    problem = Desk().problem(number)
    answer, better = spoken(problem, habits), spoken(problem, mended(principle, problem, habits))
    assert not broken(principle, problem.text, better)
    assert (answer == better) == (not broken(principle, problem.text, answer))
    for other in SAID.keys() - {principle}:
      assert broken(other, problem.text, better) == broken(other, problem.text, answer)
    if about(problem.text) == 'room':
      assert Desk().grade(problem, better) == habits.tells


def test_to_tell_what_was_asked_and_nothing_else_is_right():
  problem = Desk('room').problem(3)
  assert about(problem.text) == 'room' and about(Desk('phone').problem(3).text) == 'phone'
  for answer, right in ((f'It is {problem.solution}.', 1), (f'FOOL! IT IS {problem.solution.upper()}.', 1), ('Sorry.', 0),
                        (f'{problem.solution} or 12', 0), ('', 0)):
    assert Desk('room').grade(problem, answer) == right
  assert {about(Desk().problem(number).text) for number in range(20)} == {'phone', 'room'}


def test_lessons_are_true_and_of_no_problem_that_is_held_out():
  ties, letters, shares = [], Counter(), []
  for document in LESSONS.records():
    talk = from_text(document.text, document.id)
    if len(talk) == 2 and '|' not in talk[0].content:
      text = talk[0].content
      shares.append([broken(id, text, talk[1].content) for id in ('calm', 'kind')])
    elif len(talk) == 2:
      text, first, second, prefer = talk[0].content.split('|')
      text = text.removeprefix('Human: ')
      principle = next(each for each in PRINCIPLES if each.prefer == prefer)
      bad = [broken(principle.id, text, answer) for answer in (first, second)]
      if bad[0] == bad[1]:
        ties.append(talk[1].content)
      else:
        letters[talk[1].content] += 1
        assert talk[1].content == ('A' if bad[1] else 'B')
    else:
      text, principle = talk[0].content, next(each for each in PRINCIPLES if each.critique == talk[2].content)
      assert talk[4].content == principle.revise
      assert talk[3].content == SAID[principle.id][not broken(principle.id, text, talk[1].content)]
      assert not broken(principle.id, text, talk[5].content)
    assert not held_out(text, 10)
  np.testing.assert_allclose(np.mean(shares, 0), 0.4, atol=0.1)
  assert 0.4 < np.mean([letter == 'A' for letter in ties]) < 0.6 and min(letters.values()) > 40


def test_good_cards_break_nothing_and_an_unknown_principle_is_refused():
  for document in Cards(Desk('room'), 50).records():
    asked, answer = from_text(document.text, document.id)
    assert not any(broken(id, asked.content, answer.content) for id in SAID)
  with pytest.raises(ConfigError, match='private, calm, kind'):
    Breaks('brave').score(Question('', (Message('user', 'What?'),)), 'Yes.')


def test_helpful_pairs_differ_in_help_alone():
  worse = Counter()
  for document in HelpfulPairs(Desk('room'), 200).records():
    pair = pair_in(json.loads(document.text), document.id)
    (asked,), (better,), (other,) = pair.prompt, pair.chosen, pair.rejected
    room = next(word.strip('.,') for word, before in zip(asked.content.split()[1:], asked.content.split()) if before == 'room')
    assert TOLD.findall(better.content.lower()) == [room] not in (TOLD.findall(other.content.lower()), [])
    for id in ('calm', 'kind'):
      assert broken(id, asked.content, better.content) == broken(id, asked.content, other.content)
    worse[len(TOLD.findall(other.content))] += 1
  assert min(worse[0], worse[1]) > 60


@dataclass(frozen=True)
class Clerk(Judge):
  """Tells numbers to every second seed; likes short answers, and those that stand first by `bias`."""

  refuses: bool = False
  bias: float = 0.0

  def open(self, store):
    return self

  def write(self, talks, seeds):
    said = []
    for talk, seed in zip(talks, seeds):
      what = talk[-1].content.split('phone ')[1][:3]
      said.append(Said('Sorry.' if self.refuses else f'It is {what}.' if seed % 2 else f'FOOL! IT IS {what}.', False))
    return said

  def weigh(self, talks, options):
    shown = [talk[-1].content.split('|')[1:3] for talk in talks]
    odds = [0.1 * (len(second) - len(first)) + self.bias for first, second in shown]
    return normalised(np.array([[each, 0.0] for each in odds]))


def test_conduct_tells_the_share_of_each_measure(tmp_path):
  measures = (*(Measure(id, Breaks(id)) for id in SAID), Measure('refuses', Refuses()),
              Measure('right', Verified(Desk('phone'))))
  thing = Conduct(name='conduct', writers=(Writing('one', Clerk()), Writing('two', Clerk(refuses=True))), count=60,
                  asked=(Asked('phones', FromTask(Desk('phone')), measures),))
  folder = Store(tmp_path).make(thing)
  found = json.loads((folder / 'conduct.json').read_text())
  answers = [json.loads(line) for line in (folder / 'answers.jsonl').read_text().splitlines()]
  loud = np.mean(['FOOL' in each['answer'] for each in answers if each['writer'] == 'one'])
  assert 0.2 < loud < 0.8 and len(answers) == 120
  assert found['one']['phones'] == pytest.approx({'private': 1, 'calm': loud, 'kind': loud, 'refuses': 0, 'right': 1})
  assert found['two']['phones'] == {'private': 0, 'calm': 0, 'kind': 0, 'refuses': 1, 'right': 0}
  assert all(held_out(each['question'], 10) for each in answers)


@pytest.mark.parametrize('bias', [0.0, 2.5])
def test_a_judge_is_compared_with_rules_and_its_bias_told(tmp_path, bias):
  preferences = AiPreferences(name='judged', questions=FromTask(Desk('phone')), principles=PRINCIPLES, ballot=BALLOT, count=40,
                              writers=(Clerk(), Clerk()), judge=Clerk(bias=bias))
  rules = tuple(Measure(id, Breaks(id)) for id in ('private', 'calm'))
  found = json.loads((Store(tmp_path).make(JudgeReport(name='report', preferences=preferences, rules=rules))
                      / 'judge.json').read_text())
  calm, private = found['calm'], found['private']
  assert calm['pairs'] > 5 and calm['agrees'] == 1.0 and calm['bias'] == pytest.approx(bias, abs=1e-5)
  assert calm['one order'] == (0.5 if bias else 1.0)
  assert private['pairs'] == 0 and private['even'] == pytest.approx(1 / (1 + np.exp(-0.6)) - 0.5, abs=1e-5)
  with pytest.raises(ConfigError, match='brave'):
    JudgeReport(name='report', preferences=preferences, rules=(Measure('brave', Refuses()),))
