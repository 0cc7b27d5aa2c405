"""On-policy distillation: rows are the answers of the student as it is, the same after a cut, and the teacher mends them."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from align.on_policy import OnPolicy
from align.questions import FromTask
from model.chat import Plain
from model.errors import CheckpointError, ConfigError
from tests.align.learnt import parent
from tests.align.rollouts import TASK, opened
from tests.data.fake_corpus import made
from tests.train.going_on import check_goes_on
from train.artifact import Store
from train.distil import Distil, Reverse
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.trained import beside


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """(student, teacher, store), made: the same model after one step and after twelve."""
  tokens, store = made(tmp_path_factory.mktemp('on-policy'))
  student = parent(tokens)
  teacher = replace(student, name='teacher', steps=12, optimizer=Optimizer(AdamW(lr=3e-2)))
  for run in (student, teacher):
    store.make(run)
  return student, teacher, store


def learner(world, **fields) -> Run:
  student, teacher, _ = world
  rows = OnPolicy(questions=FromTask(TASK), vocabulary=student.vocabulary, template=Plain(), prompt_tokens=48, answer_tokens=6)
  return Run(**({'name': 'learner', 'model': student.model, 'restore': student, 'rows': rows, 'batch': 8, 'steps': 6,
                 'objective': Distil(teacher, Reverse()), 'optimizer': Optimizer(AdamW(lr=1e-2, weight_decay=0.0)),
                 'watch': Watch(heldout=6, heldout_rows=12, metrics=1), 'saving': Saving(every=3)} | fields))


def test_rows_are_answers_of_the_student_as_it_is(world):
  run = learner(world)
  setting, source, state = opened(run, world[2])
  with jax.set_mesh(setting.built.mesh):
    batch = source(state)
    other = state.replace(params=jax.tree.map(lambda w: 2 * w, state.params))
    position, again = source.save(), source(state)
    source.load(position)
    moved = source(other)
    source.load(position)
    same = source(state)
  tokens, mask = np.asarray(batch['tokens']), np.asarray(batch['mask'])
  assert tokens.shape == (8, 54) and set(np.unique(mask)) == {0, 1} and 1 <= mask.sum(1).min() <= mask.sum(1).max() <= 6
  assert source.describe(9).startswith('batch 1, answer 1')
  for name in same:
    np.testing.assert_array_equal(same[name], again[name])
  assert np.any(np.asarray(moved['tokens']) != np.asarray(again['tokens']))
  with pytest.raises(CheckpointError):
    replace(run.rows, seed=1).open(setting).load(position)


def test_the_student_comes_nearer_to_its_teacher_and_goes_on_after_a_cut(world, tmp_path):
  _, _, store = world
  there, run = Store(tmp_path, (store.root,)), learner(world)
  folder = there.make(run)
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  divergences = [line['divergence'] for line in lines if 'divergence' in line]
  assert divergences[-1] < 0.8 * divergences[0]
  assert {'heldout_divergence', 'heldout_answer_tokens'} <= set(lines[-1]) | set(lines[-2])
  check_goes_on(run, there)


def test_the_divergence_of_a_student_from_itself_is_zero(world):
  """Sampled, scored and compared with the same code, on its own answers."""
  student, _, store = world
  run = learner(world, objective=Distil(student, Reverse()))
  setting, source, state = opened(run, store)
  with jax.set_mesh(setting.built.mesh):
    others = beside(run, store, jax.devices()[:1])
    metrics = jax.jit(setting.built.step)(state, others, source(state))[1]
  assert abs(float(metrics['divergence'].value())) < 1e-5 and float(metrics['agreement'].value()) == 1
  assert float(metrics['grad_norm'].value()) < 1e-4


def test_counts_below_one_are_refused(world):
  with pytest.raises(ConfigError, match='answer_tokens = 0'):
    replace(learner(world).rows, answer_tokens=0)
