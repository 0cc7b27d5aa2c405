"""Stages side by side: a stage is as good as itself, the better one is told, and the page says what was measured."""

import numpy as np
import pytest

from align.kl import Fixed
from align.policy import GRPO
from align.questions import FromTask
from align.rewards import Part
from align.rollout_rows import Lot
from align.stages import STAGES, Said, Stage, Stages, compared, interval
from align.stages_page import bars, render, summary
from tests.align.learnt import parent
from tests.align.rollouts import TASK, Letters, learner, rollouts
from tests.data.fake_corpus import made
from train.artifact import read_json
from train.run import Saving

JUDGES = (Part('letters', Letters()),)


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  """(the stages, what was measured of them, the page) of a model and what rewards made of it."""
  tokens, store = made(tmp_path_factory.mktemp('stages'))
  before = parent(tokens)
  after = learner(before, rollouts(tokens.vocabulary, kl=Fixed(0.0), rewards=JUDGES, asked=8, epochs=1), objective=GRPO(),
                  batch=32, steps=30, saving=Saving(every=0))
  stages = Stages(name='compared', stages=(Stage('before', before), Stage('after', after)), against='before',
                  questions=FromTask(TASK), judges=JUDGES, answers=24, answer_tokens=6, shown=2, batch=8)
  folder = store.make(stages)
  return stages, read_json(folder / STAGES), (folder / 'stages.html').read_text()


def test_a_stage_is_as_good_as_itself_and_no_distance_from_itself(found):
  before, after = found[1]['stages']
  assert (before['wins'], before['wins_low'], before['wins_high'], before['kl']) == (0.5, 0.5, 0.5, 0.0)
  assert after['wins'] > 0.6 and after['judges']['letters']['mean'] > before['judges']['letters']['mean'] + 0.3
  assert after['kl'] > 0.1 and after['digest'] != before['digest']


def test_the_page_says_what_was_measured(found):
  stages, numbers, page = found
  assert page == render(numbers) and 'The answers of after are preferred to those of before' in page
  assert len(numbers['samples']) == 2 and set(numbers['samples'][0]['answers']) == {'before', 'after'}
  assert numbers['samples'][0]['question'] in page and f'{numbers["stages"][1]["wins"]:.1%}' in page
  assert numbers['questions'] == len({stages.questions.open(None, 'heldout')(i).id for i in range(24)})


def test_chance_is_called_chance():
  row = {'name': 'b', 'wins': 0.53, 'wins_low': 0.45, 'wins_high': 0.6, 'kl': 1.0}
  told = {'against': 'a', 'stages': [row]}
  assert 'beyond chance' in summary(told) and not bars(told)[0].better


def test_ties_are_half_a_win_and_intervals_hold_the_mean():
  def said(*totals):
    lot = Lot([], [], {'x': np.array(totals)}, np.array(totals))
    answers = [type('A', (), {'ids': np.zeros(3), 'reason': 'eos'})()] * len(totals)
    return Said(answers, lot.rewards, lot.total_B, np.zeros(len(totals)))

  row = compared(said(1.0, 2.0, 0.0, 5.0), said(1.0, 1.0, 1.0, 1.0))
  assert row['wins'] == 0.625 and row['wins_low'] <= 0.625 <= row['wins_high']
  assert row['judges']['x'] == {'mean': 2.0, 'error': pytest.approx(np.std([1, 2, 0, 5]) / 2)}
  low, high = interval(np.repeat([0.0, 1.0], 500))
  assert 0.46 < low < 0.48 and 0.52 < high < 0.54


@pytest.mark.parametrize('won', [0.0, 1.0])
def test_never_or_always_of_a_few_has_an_interval_that_can_be_seen(won):
  low, high = interval(np.full(16, won))
  assert (low, high) == pytest.approx((0.0, 0.2059) if won == 0 else (0.7941, 1.0), abs=1e-4)      # Clopper and Pearson's
  assert (1 - high) ** 16 == pytest.approx(0.025) if won == 0 else low ** 16 == pytest.approx(0.025)
  row = {'name': 'b', 'wins': won, 'wins_low': low, 'wins_high': high, 'kl': 1.0}
  [bar] = bars({'against': 'a', 'stages': [row]})
  assert bar.span == '20.6' and bar.between == ('0% to 21%' if won == 0 else '79% to 100%')
  assert interval(np.full(16, 0.5)) == (0.5, 0.5)
