"""Each class of failure on outputs that were made to have it, and to just not have it."""

import numpy as np
import pytest

from train.eval.failures import LEAST, LONGEST_PHRASE, REPEATS, Output, count, loops, wilson_upper


def output(ids=range(20), text='words', logps=(-1.0,), reason='eos'):
  return Output(list(ids), text, logps, reason)


def hits(*outputs):
  return {row['name']: row['count'] for row in count(outputs)}


def test_a_good_answer_is_in_no_class():
  assert hits(output()) == {'empty': 0, 'cut off': 0, 'repetition loop': 0, 'non-finite': 0}


@pytest.mark.parametrize('name, bad', [
  ('empty', output(ids=[], text='')),
  ('empty', output(text=' \n\t ')),
  ('cut off', output(reason='length')),
  ('repetition loop', output(ids=[5] * LEAST)),
  ('non-finite', output(logps=(-1.0, np.nan))),
  ('non-finite', output(logps=(-np.inf,))),
])
def test_each_class_is_counted_alone(name, bad):
  found = hits(bad, output())
  assert found.pop(name) == 1
  assert not any(found.values())


def test_an_answer_can_be_in_several_classes():
  assert hits(output(ids=[1] * 40, text='', logps=[np.nan] * 40, reason='length')) == {
    'empty': 1, 'cut off': 1, 'repetition loop': 1, 'non-finite': 1}


@pytest.mark.parametrize('phrase', [1, 2, 5, 16, LONGEST_PHRASE])
def test_a_loop_is_a_phrase_often_enough_in_a_row(phrase):
  unit, before, after = list(range(100, 100 + phrase)), [1, 2, 3], [7, 8, 9]
  times = max(REPEATS, -(-LEAST // phrase))
  assert loops(unit * times)
  assert loops(before + unit * times + after)
  assert not loops(before + (unit * times)[:max(REPEATS * phrase, LEAST) - 1] + after)


def test_no_loop_in_short_longer_or_growing_things():
  assert not loops([])
  assert not loops([1])
  assert not loops([1] * (LEAST - 1))
  assert not loops(list(range(LONGEST_PHRASE + 1)) * 8)
  assert not loops([x for n in range(30) for x in (*range(n), 99)])


def test_a_rate_has_its_denominator_and_a_bound():
  rows = count([output(reason='length')] * 3 + [output()] * 9)
  assert {row['of'] for row in rows} == {12}
  assert next(row for row in rows if row['name'] == 'cut off')['rate'] == 0.25
  assert all(row['at_most'] > row['rate'] for row in rows)
  assert all(row['rate'] is None and row['at_most'] is None for row in count([]))


def test_wilson_known_values():
  z = 1.959964
  assert wilson_upper(0, 10) == pytest.approx(z * z / (10 + z * z))
  assert wilson_upper(10, 10) == pytest.approx(1.0)
  assert wilson_upper(1, 10) == pytest.approx(0.4042, abs=1e-4)
