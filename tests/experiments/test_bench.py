"""Laws of the bench: the arithmetic of its lines, when it judges and when it does not, and turns of real processes."""

import json

import pytest

from experiments.bench.driver import Contestant, Died, race
from experiments.bench.line import Figures, Line, Target, apart, append, figures
from experiments.bench.show import latest, markdown

RACER = '''
import sys
from experiments.bench.worker import serve, timed

class Racer:
  def __init__(self, value):
    self.value, self.done = value, 0
  def prepare(self):
    print('a stray word on standard output')
    if self.value < 0:
      raise ValueError('no negative racers')
    return {'losses': [self.value]}
  def step(self):
    self.done += 1
    sample, total = timed(lambda: sum(range(1000)))
    with open(sys.argv[2], 'a') as order:
      order.write(f'{self.value}:{self.done} ')
    return sample | {'loss': self.value / self.done}

serve(Racer(int(sys.argv[1])))
'''


def flat(median: float, spread: float = 0.0) -> Figures:
  return Figures(median, median, spread, median, 1)


def line(spread: float = 0.0, theirs: float = 3.0, **more) -> Line:
  made = Line('toy', 's', {'ours': flat(2.0), 'slow': flat(5.0), 'quick': flat(theirs, spread)}, 'ours', **more)
  made.targets = [Target('speed of quick', made.ratios['quick'], least=1.2)]
  return made


def test_figures_are_medians_over_steps_and_a_spread_over_turns():
  turns = [[{'wall': 1.0, 'cpu': 2.0}, {'wall': 3.0, 'cpu': 4.0}], [{'wall': 2.0, 'cpu': 6.0}, {'wall': 2.0, 'cpu': 4.0}],
           [{'wall': 2.0, 'cpu': 4.0}, {'wall': 9.0, 'cpu': 4.0}]]
  assert figures(turns) == Figures(median=2.0, minimum=1.0, spread=(5.5 - 2.0) / 2.0, cpu=4.0, count=6)


def test_curves_are_compared_as_far_as_both_go():
  assert apart([3.0, 2.0, 1.0], [3.0, 2.25]) == 0.25


@pytest.mark.parametrize('made, verdict', [
  (line(), 'met'), (line(theirs=2.2), 'missed'), (line(spread=0.16), 'noisy'), (line(spread=0.14), 'met'),
  (line(quick=True), 'quick'), (line(checks={'equal': False}), 'unequal'), (line(checks={'missing': ['x']}), 'no peers'),
  (line(spread=0.5, checks={'equal': False}), 'unequal')])
def test_it_judges_only_what_is_equal_calm_and_complete(made, verdict):
  assert made.verdict == verdict


def test_a_line_names_the_best_peer_and_its_ratio():
  written = json.loads(line().json())
  assert (written['best_peer'], written['ratio'], written['ratios']['slow']) == ('quick', 1.5, 2.5)
  assert written['versions']['jax'] and written['cores'] and written['priority'] in ('round-robin', 'normal')


def test_no_ratio_is_told_of_contestants_that_did_not_do_the_same():
  written = json.loads(line(checks={'equal': False}).json())
  assert written['ratios'] == {} and written['ratio'] is None


def test_the_table_has_the_last_line_of_each_benchmark(tmp_path):
  out = tmp_path / 'bench.jsonl'
  append(out, line(theirs=2.2))
  append(out, line())
  assert [each['verdict'] for each in latest(out)] == ['met']
  assert '| toy | speed of quick 1.5 | ≥ 1.2 | 2 s | quick 3 s | met |' in markdown(latest(out)).splitlines()


@pytest.fixture
def contestant(tmp_path):
  (tmp_path / 'racer.py').write_text(RACER)
  return lambda name, value: Contestant(name, 'racer', (str(value), str(tmp_path / 'order')),
                                        environment={'PYTHONPATH': str(tmp_path)})


def test_contestants_take_turns_and_what_they_print_is_no_answer(contestant, tmp_path):
  found = race([contestant('a', 1), contestant('b', 2)], turns=3, count=2, logs=tmp_path)
  steps = [(name, step) for turn in ((1, 2), (3, 4), (5, 6)) for name in (1, 2) for step in turn]
  assert (tmp_path / 'order').read_text().split() == [f'{name}:{step}' for name, step in steps]
  assert found.prepared == {'a': {'losses': [1]}, 'b': {'losses': [2]}} and len(found.load) == 3
  assert found.series('b', 'loss') == [2 / i for i in range(1, 7)]
  assert all(wall > 0 for wall in found.series('a', 'wall'))


def test_a_peer_that_dies_is_told_of_and_ours_must_not(contestant, tmp_path):
  found = race([contestant('a', 1), contestant('b', -1)], turns=3, count=1, logs=tmp_path)
  assert 'no negative racers' in found.died['b'] and list(found.turns) == ['a']
  with pytest.raises(Died, match='no negative racers'):
    race([contestant('a', -1)], turns=3, count=1, logs=tmp_path)
