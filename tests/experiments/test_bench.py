"""Laws of the bench: the arithmetic of its lines, when it judges and when it does not, and turns of real processes.

Of the GPU benchmark, what holds without a GPU: what its figures count, and that a part that fails, hangs or comes too late
is told of and costs the others nothing.
"""

import json
import os
import sys
import time
from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments.bench.driver import Contestant, Died, race
from experiments.bench.gpu import __main__ as gpu
from experiments.bench.gpu import parts, table, train
from experiments.bench.gpu.bench import Bench, Ended, card
from experiments.bench.line import Figures, Line, Target, apart, append, figures
from experiments.bench.ours.model import Form, Whole, attends, decoder
from experiments.bench.ours.train import form_of
from experiments.bench.show import latest, markdown
from experiments.bench.sights import BOTH, FORWARD, Sight
from experiments.bench.task import TASKS, Task
from experiments.bench.worker import pace, shared
from model.config import Compute
from model.count import flops_per_token
from model.decoder import build
from model.sharding import unbox
from train.objectives import NextToken

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


def test_a_contestant_that_outstays_its_time_is_ended(contestant, tmp_path):
  (tmp_path / 'sleeper.py').write_text('import time\ntime.sleep(60)\n')
  slow = replace(contestant('slow', 1), module='sleeper', patience=0.5)
  begin = time.monotonic()
  with pytest.raises(Died, match='slow ended with -9'):
    race([slow], turns=1, count=1, logs=tmp_path)
  assert time.monotonic() - begin < 30


@pytest.mark.parametrize('name', TASKS)
def test_a_tasks_flops_are_those_that_the_model_counts(name):
  task = TASKS[name]
  assert task.flops == pytest.approx(task.tokens * flops_per_token(decoder(task), task.length))


def test_the_task_of_the_cpu_is_what_it_was():
  assert TASKS['10m'] == Task(8192, 256, 8, 8, 688, length=512, batch=8, lr=1e-3, burst=1)


def test_whole_rows_are_packed_rows_of_one_document():
  """The same loss; a second document, the control, is seen by the packed form alone."""
  task = TASKS['tiny']
  model = build(decoder(task))
  params = unbox(model.init(jax.random.key(0)))
  tokens = np.random.default_rng(0).integers(0, task.vocab, (task.batch, task.length + 1)).astype(np.int32)
  one, two = np.ones_like(tokens), 1 + (np.arange(task.length + 1) > 20) + 0 * tokens

  @jax.jit
  def losses(segments):
    batch = {'tokens': tokens, 'segments': segments}
    return [objective(model)(params, {}, batch, None).objective.value() for objective in (Whole(), NextToken())]

  whole, packed, still, other = map(float, losses(one) + losses(two))
  assert still == whole == pytest.approx(packed, abs=1e-5)
  assert abs(other - packed) > 1e-4


def test_a_form_comes_from_json():
  assert form_of('{}') == Form()
  told = form_of('{"rows": "whole", "parts": 1, "compute": {"remat": "dots"}}')
  assert (told.rows, told.parts, told.compute.remat, told.stream) == ('whole', 1, 'dots', 'float32')


def test_attention_is_told_as_the_form_names_it_or_as_the_door_chooses():
  task = TASKS['tiny']
  assert attends(task, 'bfloat16', Form(compute=Compute(attention='triton'))) == 'triton'
  assert attends(task, 'bfloat16', Form()).startswith('blocked')


def test_only_live_scores_count():
  causal, packed = Sight(64, 2048, False), Sight(64, 2048, True)
  assert causal.flops(FORWARD) == 4 * 64 * 32 * 8 * 2048 * 2049 / 2
  assert causal.flops(BOTH) == 3.5 * causal.flops(FORWARD)
  live = sum((row == segment).sum() * ((row == segment).sum() + 1) / 2
             for row in packed.segments() for segment in set(row.tolist()))
  assert packed.flops(FORWARD) == 4 * 64 * 32 * live < causal.flops(FORWARD) / 2
  assert packed.segments().shape == (8, 2048) and packed.segments().min() == 1


def test_a_pace_is_of_one_call_and_waits_once_a_burst():
  waits: list[None] = []
  seconds = pace(lambda: time.sleep(0.01), waits.append, seconds=0.1, bursts=3)
  assert 0.01 <= seconds < 0.1 and len(waits) == 5
  assert shared({'wall': 3.0, 'cpu': 6.0}, 3) == {'wall': 1.0, 'cpu': 2.0}


@pytest.fixture
def bench(tmp_path):
  return Bench(tmp_path, tmp_path, sys.executable, sys.executable, True, time.monotonic() + 120)


def test_a_program_tells_as_it_goes_and_how_it_ended(bench, tmp_path):
  told = bench.lines([sys.executable, '-c', 'print(1, flush=True); import time; time.sleep(300)'], 'log')
  begin = time.monotonic()
  assert next(told) == '1' and time.monotonic() - begin < 100
  bench.end = 0.0                        # a second is left
  with pytest.raises(Ended, match='ended with -9'):
    list(bench.lines([sys.executable, '-c', 'import time; time.sleep(60)'], 'log'))
  with pytest.raises(Ended, match='no such thing'):
    list(bench.lines([sys.executable, '-c', 'raise SystemExit("no such thing")'], 'log'))


def test_a_part_that_fails_or_comes_too_late_is_told_of(bench, monkeypatch, tmp_path):
  def fails(bench):
    yield {'what': 'begun', 'seconds': 1.5}
    raise ValueError('it broke')

  monkeypatch.setattr(gpu, 'PARTS', {'ceilings': (fails, 5), 'tests': (lambda bench: iter([{'tests': 3}]), 5)})
  monkeypatch.setattr(gpu, 'LIMIT', type('Flag', (), {'value': 100.0}))
  gpu.go('ceilings', bench, time.monotonic() + 100)
  gpu.go('tests', bench, time.monotonic() + 100)
  gpu.go('tests', bench, time.monotonic() + 5)
  records = [json.loads(line) for line in (tmp_path / table.FILE).read_text().splitlines()]
  assert [{**record, 'took_s': None} if 'took_s' in record else record for record in records] == [
    {'part': 'ceilings', 'what': 'begun', 'seconds': 1.5}, {'part': 'ceilings', 'failed': 'ValueError: it broke'},
    {'part': 'ceilings', 'took_s': None}, {'part': 'tests', 'tests': 3}, {'part': 'tests', 'took_s': None},
    {'part': 'tests', 'failed': 'no time was left for it'}]


@pytest.fixture
def a_card(monkeypatch, tmp_path):
  """A program that says so of a card that is not here."""
  program = tmp_path / 'nvidia-smi'
  program.write_text('#!/bin/sh\necho NVIDIA A100-SXM4-80GB, 580.1\necho another')
  program.chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
  card.cache_clear()
  yield 'NVIDIA A100-SXM4-80GB, 580.1'
  card.cache_clear()


def test_records_begin_with_the_card_and_shares_are_of_its_peak(a_card):
  told = parts.begun()
  assert (told['part'], told['card']) == ('machine', a_card) and {'when', 'code', 'versions'} <= told.keys()
  turns = [[{'wall': 2.0, 'cpu': 1.0}]]
  assert train.speed('tiny', turns)['mfu'] == TASKS['tiny'].flops / 2 / 312e12


def test_tests_that_were_cut_off_are_counted_as_far_as_they_came(bench, monkeypatch, tmp_path):
  lines = ['[gw0] [ 33%] PASSED tests/a.py::test_a', '[gw1] [ 66%] FAILED tests/a.py::test_b']
  last = ['FAILED tests/a.py::test_b - AssertionError: 1 is not 2', '=== 1 failed, 1 passed in 4.11s ===']

  def told(said):
    def cut(self, command, log, environment):
      (tmp_path / f'{log}.log').write_text('\n'.join(said))
      yield from said
      raise Ended('ended with -9')

    monkeypatch.setattr(Bench, 'lines', cut)
    return next(parts.tests(bench))

  assert {**told(lines), 'seconds': 0} == {'tests': {'passed': 1, 'failed': 1}, 'all': False, 'seconds': 0, 'wrong': []}
  found = told(lines + last)
  assert found['all'] and found['wrong'] == ['tests/a.py::test_b - AssertionError: 1 is not 2']


def test_the_table_shows_what_failed_beside_what_did_not(tmp_path, capsys):
  for record in ({'part': 'ceilings', 'what': 'bfloat16 product', 'tflops': 800.0},
                 {'part': 'train', 'task': '1b', 'contestant': 'ours', 'seconds': 0.1, 'tokens_per_s': 81920.0, 'mfu': 0.4,
                  'tflops': 400.0, 'spread': 0.01, 'apart': 0.5, 'equal': False, 'attention': 'cudnn (x)'},
                 {'part': 'train', 'task': '1b', 'contestant': 'theirs', 'failed': 'Traceback\nOutOfMemory'},
                 {'part': 'attention', 'sight': 'causal 8 x 8', 'form': 'a', 'backward': False, 'tflops': 321.0},
                 {'part': 'attention', 'sight': 'causal 8 x 8', 'form': 'a', 'backward': True, 'failed': 'no kernel'}):
    table.append(tmp_path, record)
  table.show(tmp_path)
  said = capsys.readouterr().out
  assert all(word in said for word in ('50.0%', '40.0%', 'UNEQUAL', 'OutOfMemory', '321', 'no kernel', 'bfloat16 product'))
