"""Labels on their way to a run: the point that answers are measured from is of this step's parameters and the whole batch."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from align.batch_means import Means, in_batches
from align.kto import ANOTHERS, KTO, side_logps
from align.label_rows import HeldoutReferencePoint, LabelRows, ScoredLabels, WithReferencePoint
from align.reference import all_rows
from model.adapt import LoRA
from model.errors import ConfigError
from model.sharding import MeshShape
from tests.align import learnt
from tests.align.test_labels import tokens_of
from tests.data.noticed import check_noticed
from train.artifact import Store
from train.edits import split
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.trained import load
from train.typecheck import fits, hints
from train.types import State


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  """(labels, a trained parent, the labels as it scores them, the store), all made."""
  records = [{'prompt': f'q{i}', 'answer': f'the state {i}' if i % 2 else f'of {i}', 'label': i % 2 == 1} for i in range(48)]
  labels, store = tokens_of(tmp_path_factory.mktemp('rows'), records, longest=64)
  before = learnt.parent(learnt.prose(labels.vocabulary))
  scored = ScoredLabels(name='reference', labels=labels, by=before, batch=5)
  store.make(scored)
  return labels, before, scored, store


def going(shared, root, **fields) -> tuple[Run, Store]:
  """A run from the parent on the scored labels, and a store that has both."""
  _, parent, scored, store = shared
  run = Run(**({'name': 'learns', 'model': parent.model, 'rows': LabelRows(scored), 'batch': 8, 'steps': 24,
                'optimizer': Optimizer(AdamW(lr=1e-2)), 'restore': parent, 'saving': Saving(every=0),
                'objective': KTO(beta=0.5), 'watch': Watch(metrics=1, heldout=24)} | fields))
  return run, Store(root, (store.root,))


def state_of(params) -> State:
  return State(np.int32(0), params, None, jax.random.key(0))


def test_every_row_gets_the_point_of_the_whole_batch_and_of_the_parameters_it_is_asked_with(shared):
  _, parent, scored, store = shared
  trained = load(parent, store)
  mesh = MeshShape(data=8, fsdp=1).build(jax.devices())
  plain, pointed, wholes = *(LabelRows(scored).source(store, batch=8, mesh=mesh) for _ in range(2)), []
  with jax.set_mesh(mesh):
    pointed = WithReferencePoint(pointed, trained.model, {}, mesh)
    moved = jax.tree.map(lambda leaf: leaf * 1.5, trained.params)
    gain = jax.jit(lambda params, batch: side_logps(trained.model, params, batch, ANOTHERS).gain_B)
    for params in (trained.params, moved, jax.tree.map(lambda leaf: leaf * 3.0, trained.params)):
      batch, bare = pointed(state_of(params)), plain()
      wholes.append(float(gain(params, bare).mean()))
      np.testing.assert_allclose(batch['kl'], np.full(8, max(wholes[-1], 0.0)), rtol=1e-4, atol=1e-4)
      assert len(batch['kl'].sharding.device_set) == 8
      jax.tree.map(np.testing.assert_array_equal, {name: batch[name] for name in bare}, bare)
    assert min(wholes) < -0.1 < 0.1 < max(wholes)
    position, two = pointed.save(), pointed(state_of(moved))
    pointed.load(position)
    jax.tree.map(np.testing.assert_array_equal, pointed(state_of(moved)), two)
  assert pointed.describe(0).startswith('label ')
  pointed.close()
  plain.close()


def test_adapters_are_whole_where_the_point_is_taken(shared):
  """Learnt ones over their base, with the base as the reference: the same point as with the base's cached column."""
  labels, parent, scored, store = shared
  trained = load(parent, store)
  learns, frozen = split(LoRA(rank=2)(trained.params, jax.random.key(1)))
  learns = jax.tree.map(lambda leaf: leaf + 0.2, learns)
  mesh = MeshShape(data=8, fsdp=1).build(jax.devices())
  found = {}
  with jax.set_mesh(mesh):
    for rows in (LabelRows(labels), LabelRows(scored)):
      source = WithReferencePoint(rows.source(store, batch=8, mesh=mesh), trained.model, frozen, mesh)
      found[rows] = source(state_of(learns))['kl']
      source.close()
  live, cached = found.values()
  np.testing.assert_allclose(live, cached, rtol=1e-4)
  assert float(live[0]) > 0


def test_the_point_of_held_out_labels_is_of_all_of_them_however_they_are_dealt(shared):
  _, parent, scored, store = shared
  trained, opened = load(parent, store), scored.open(store, 'heldout')
  moved = jax.tree.map(lambda leaf: leaf * 1.5, trained.params)
  means, point = Means(KTO(beta=0.5)(trained.model)), HeldoutReferencePoint(trained.model)
  one, several = (means(moved, point(moved, list(in_batches(all_rows(opened, 64), size)))) for size in (len(opened), 3))
  assert len(opened) % 3 and one == pytest.approx(several, rel=1e-4)


def test_a_run_learns_from_labels_through_the_ordinary_loop(shared, tmp_path):
  """It begins where policy and reference are one, and sorts answers that it never saw."""
  run, store = going(shared, tmp_path, batch=16, parts=2)
  assert all(fits(getattr(run, name), hint) for name, hint in hints(Run).items())
  lines = [json.loads(line) for line in (store.make(run) / 'metrics.jsonl').read_text().splitlines()]
  steps, held = ([line for line in lines if name in line] for name in ('loss', 'heldout_loss'))
  assert len(steps) == 24 and abs(steps[0]['loss'] - 0.5) < 1e-3 and abs(steps[0]['kl']) < 1e-3
  assert held[-1]['heldout_loss'] < 0.3 and held[-1]['heldout_accuracy'] > 0.8
  assert held[-1]['heldout_reward_good'] > held[-1]['heldout_reward_bad']
  assert max(step['kl'] for step in steps) > 0


def test_a_run_without_what_it_needs_is_refused(shared, tmp_path):
  labels, parent, _, _ = shared
  run, _ = going(shared, tmp_path)
  for fields, id in (({'batch': 1}, 'kto.batch'), ({'rows': LabelRows(labels)}, 'dpo.no-reference'),
                     ({'restore': replace(parent, seed=1)}, 'config.other-reference'), ({'rows': parent.rows}, 'config.rows')):
    with pytest.raises(ConfigError) as caught:
      replace(run, **fields)
    assert caught.value.id == id
  assert replace(run, rows=LabelRows(labels), edits=(LoRA(),))


def test_a_changed_reference_is_found(shared):
  _, _, scored, store = shared
  check_noticed(store.find(scored) / 'heldout.reference.npy', lambda: scored.open(store, 'heldout'))
