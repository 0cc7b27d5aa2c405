"""Evaluations and comparisons: what is written can be read again, what differs is refused, and pages obey no text."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from model.errors import ConfigError, DataError
from tests.eval.test_report import HOSTILE, Page
from train.artifact import Artifact, Store
from train.eval import comparison_page, evaluation_page, render
from train.eval.comparison import Comparison, check_same, compared, drawn, headlines
from train.eval.evaluation import Evaluation, columns_of, headline, told
from train.eval.evaluation import drawn as table
from train.eval.heat import heat
from train.eval.task import FIGURES, Taken, Task


def classified(seed: int = 0, right: float = 0.7) -> Taken:
  random = np.random.default_rng(seed)
  truth = np.arange(60) % 3
  said = np.where(np.random.default_rng(9).random(60) < right, truth, random.integers(0, 3, 60))
  return Taken([f'i{i}' for i in range(60)], {'truth': truth.astype(np.int32), 'said': said.astype(np.int32)},
               ('plain', HOSTILE, 'third'))


def answered(wrong: int = 4) -> Taken:
  exact = np.arange(20) >= wrong
  columns = {'exact': exact.astype(float), 'token_f1': np.linspace(0, 1, 20), 'judged': np.array([np.nan] + [0.5] * 19)}
  return Taken([f'q{i}' for i in range(20)], columns,
               shown=({'question': f'Who? {HOSTILE}', 'answer': f'{wrong}{HOSTILE}', 'wanted': HOSTILE},))


FOUND = {'classes': (('weighted_f1', 'macro_f1', 'accuracy'), classified()),
         'questions': (('exact_match', 'token_f1', 'judged'), answered())}


def record(name: str, found: dict) -> dict:
  tasks = [{'name': task, 'kind': 'Told', 'digest': 'd' * 64} | told(*of) for task, of in found.items()]
  return {'schema': 1, 'name': f'{name}-tasks', 'digest': name * 60, 'written': '2026-11-27T12:00:00', 'run':
          {'name': f'{name}{HOSTILE}', 'digest': 'e' * 64}, 'tasks': tasks}


def test_figures_can_be_had_again_from_the_file():
  found = json.loads(json.dumps(record('a', FOUND), allow_nan=False))
  for task in found['tasks']:
    for figure in task['figures']:
      assert FIGURES[figure['name']](columns_of(task)) == pytest.approx(figure['value'])
      assert figure['low'] <= figure['value'] <= figure['high']
  assert found['tasks'][1]['columns']['judged'][0] is None and found['tasks'][1]['figures'][2]['value'] == 0.5
  assert np.sum(found['tasks'][0]['confusion']) == 60 and found['tasks'][0]['per_class'][1]['support'] == 20
  assert headline(found)['questions_exact_match'] == 0.8 and set(map(type, headline(found).values())) == {float}
  assert table(found).row_count == 6


def test_figures_without_their_columns_are_left_out():
  taken = answered()
  del taken.columns['judged']
  found = told(('exact_match', 'token_f1', 'judged'), taken)
  assert [figure['name'] for figure in found['figures']] == ['exact_match', 'token_f1']


def test_a_comparison_says_which_is_better_and_how_sure_that_is():
  one, other = record('a', FOUND), record('b', FOUND | {'questions': (FOUND['questions'][0], answered(wrong=0))})
  found = json.loads(json.dumps(compared(one, other), allow_nan=False))
  same, better = found['tasks'][0]['figures'][0], found['tasks'][1]['figures'][0]
  assert (same['difference'], same['low'], same['high'], same['better']) == (0, 0, 0, 0.5)
  assert better['difference'] == pytest.approx(0.2) and better['low'] > 0 and better['better'] > 0.97
  back = compared(other, one)['tasks'][1]['figures'][0]
  assert [back[part] for part in ('difference', 'low', 'high')] == pytest.approx([-better[part] for part in
                                                                                  ('difference', 'high', 'low')])
  assert [item['one'][0] + item['other'][0] for item in found['tasks'][1]['shown']] == ['40']
  assert 'is better on questions (exact match +0.200)' in comparison_page.summary(found) and drawn(found).row_count == 6


def test_less_is_better_where_it_is():
  def foretold(nll: float) -> dict:
    columns = {'nll': nll * np.arange(1, 31), 'tokens': np.full(30, 10), 'bytes': np.full(30, 40)}
    return {'text': (('bits_per_byte', 'loss'), Taken([f'{i}' for i in range(30)], columns))}

  found = compared(record('a', foretold(1.0)), record('b', foretold(0.9)))
  figure = found['tasks'][0]['figures'][0]
  assert figure['lower'] and figure['difference'] < 0 and figure['high'] < 0 and figure['better'] == 1
  assert 'b' in comparison_page.summary(found) and 'is better on text' in comparison_page.summary(found)


def test_what_cannot_be_compared_is_refused():
  one = record('a', FOUND)
  other = record('b', {'questions': (FOUND['questions'][0], answered()._replace(ids=[f'q{i + 1}' for i in range(20)]))})
  with pytest.raises(DataError, match=r'20 and 20, of which 1 and 1 are in one alone; the first: .q0., .q1.'):
    compared(one, other)
  with pytest.raises(DataError, match='its settings differ'):
    check_same(one['tasks'][0], one['tasks'][0] | {'digest': 'f' * 64})
  with pytest.raises(DataError, match='no task in common: classes, questions; others'):
    compared(one, record('b', {'others': FOUND['classes']}))
  half = compared(one, record('b', {'classes': FOUND['classes']}))
  assert [task['name'] for task in half['tasks']] == ['classes'] and list(half['missing']) == ['questions']
  assert 'Not compared: questions' in Page(comparison_page.render(half)).text


def test_reports_are_compared_without_intervals():
  rows = headlines({'headline': {'loss': 2.0, 'mfu': None, 'mine': 1}}, {'headline': {'loss': 1.5, 'mfu': 0.3, 'theirs': 2}})
  assert rows == [{'name': 'loss', 'one': 2.0, 'other': 1.5, 'difference': -0.5},
                  {'name': 'mfu', 'one': None, 'other': 0.3, 'difference': None}]
  side = {'name': 'r', 'digest': 'd', 'run': 'r'}
  found = {'one': side, 'other': side, 'tasks': [], 'missing': {}, 'headline': rows}
  assert 'there is no interval' in Page(comparison_page.render(found)).text and drawn(found).row_count == 2


def test_pages_show_everything_and_obey_nothing():
  found = record('a', FOUND)
  other = record('b', FOUND | {'questions': (FOUND['questions'][0], answered(wrong=9))})
  texts = {'evaluation': evaluation_page.render(found), 'comparison': comparison_page.render(compared(found, other))}
  for name, text in texts.items():
    page = Page(text)
    assert not {'script', 'img', 'iframe', 'object', 'embed', 'base', 'form'} & {tag for tag, _ in page.tags}, name
    assert not [each for _, attributes in page.tags for each in attributes if each.startswith('on')]
    assert '\x1b' not in text and '\u202e' not in text and "default-src 'none'" in text
    assert page.text.count('<script>alert(1)</script>') >= 3
  page = Page(texts['evaluation'])
  for words in ('0.800', 'weighted F1', 'F1', '60 items', 'third said to be third'):
    assert words in page.text, words
  assert len([tag for tag, _ in page.tags if tag == 'rect']) == 9


def test_a_large_confusion_matrix_has_no_names_on_its_sides_and_no_tags_in_them():
  few, many = heat([[1, 0], [2, 3]], ['a\u202e', 'b']), heat(np.eye(60, dtype=int).tolist(), [f'c{i}' for i in range(60)])
  assert few.count('<text') == 3 + 4 and many.count('<text') == 0 and many.count('<rect') == 3600
  assert '<span' not in few and '\\u202e' in few


@dataclass(frozen=True, kw_only=True)
class Told(Task):
  """What stands above."""

  able: bool = True
  more: int = 0
  figures: ClassVar = FOUND['questions'][0]

  def take(self, trained, store):
    return FOUND['questions'][1]

  def check(self, run):
    if not self.able:
      raise ConfigError('task.cannot', self.name, 'no', 'no')


@dataclass(frozen=True, kw_only=True)
class Nobody(Artifact):
  """A run that nobody opens."""

  name: str                            # part of what it is

  def make(self, folder, store):
    pass


def test_an_evaluation_is_checked_and_made(tmp_path, monkeypatch):
  with pytest.raises(ConfigError, match='a name of its own'):
    Evaluation(name='e', run=Nobody(name='n'), tasks=(Told(name='t'), Told(name='t')))
  with pytest.raises(ConfigError, match=r'task\.cannot'):
    Evaluation(name='e', run=Nobody(name='n'), tasks=(Told(name='t', able=False),))
  monkeypatch.setattr('train.eval.evaluation.load', lambda run, store: None)
  folder = Store(tmp_path).make(Evaluation(name='e', run=Nobody(name='n'), tasks=(Told(name='t'), Told(name='u'))))
  found = json.loads((folder / 'evaluation.json').read_text())
  assert [task['name'] for task in found['tasks']] == ['t', 'u'] and found['tasks'][0]['digest'] != found['tasks'][1]['digest']
  assert '0.800' in Page((folder / 'evaluation.html').read_text()).text


def test_a_comparison_is_checked_and_made(tmp_path, monkeypatch):
  def of(name: str, *tasks: Task) -> Evaluation:
    return Evaluation(name=f'of-{name}', run=Nobody(name=name), tasks=tasks)

  for other in (Told(name='u'), Told(name='t', more=1)):
    with pytest.raises(ConfigError, match='share no task, or tasks of one name'):
      Comparison(name='c', one=of('a', Told(name='t')), other=of('b', other))
  monkeypatch.setattr('train.eval.evaluation.load', lambda run, store: None)
  comparison = Comparison(name='c', one=of('a', Told(name='t')), other=of('b', Told(name='t'), Told(name='u')))
  folder = Store(tmp_path).make(comparison)
  assert json.loads((folder / 'comparison.json').read_text())['missing'] == {'u': 'in of-b of b alone'}
  assert 'differ on no task beyond chance' in Page((folder / 'comparison.html').read_text()).text


def test_a_report_shows_its_evaluation():
  assert 'tasks' not in render.sections(False) and list(render.sections(True)).index('tasks') == 5
  brief = [{part: task[part] for part in task if part not in ('ids', 'columns')} for task in record('a', FOUND)['tasks']]
  assert [view.name for view in render.evaluated({'evaluation': brief})] == ['classes', 'questions']
  assert render.evaluated({}) == []
