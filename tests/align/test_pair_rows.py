"""Pairs on their way to a run: an order that the seed and the step decide, and a reference that is of these pairs alone."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from align.answer_logps import pair_logps
from align.batch_means import Means, in_batches
from align.dpo import DPO, SimPO
from align.pair_report import Agreement, longer
from align.pair_rows import PairRows, Scored
from align.reference import all_rows
from align.reward import RewardModel, Score
from model.adapt import LoRA
from model.errors import CheckpointError, ConfigError, DataError
from model.sharding import MeshShape
from tests.align import learnt
from tests.align.test_preferences import tokens_of
from tests.data.noticed import check_noticed
from train.artifact import Store, digest, read_json
from train.data.pipeline import Batches
from train.objectives import NextToken
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.trained import load
from train.typecheck import fits, hints


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
  """(pairs, a trained parent, the pairs as it scores them, the store), all made."""
  records = [{'prompt': f'q{i}', 'chosen': 'the state ' * (i % 3 + 1), 'rejected': f'of {i}'} for i in range(40)]
  pairs, store = tokens_of(tmp_path_factory.mktemp('rows'), records, longest=64)
  before = learnt.parent(learnt.prose(pairs.vocabulary))
  scored = Scored(name='reference', pairs=pairs, by=before, batch=3)
  store.make(scored)
  return pairs, before, scored, store


def test_every_pair_comes_once_an_epoch_in_an_order_of_its_own(shared):
  pairs, _, _, store = shared
  visits, again = (PairRows(pairs, seed=3).visits(store) for _ in range(2))
  count = len(pairs.open(store, 'train'))
  first, second = ([visits[i]['tokens'].tobytes() for i in range(begin, begin + count)] for begin in (0, count))
  wanted = [pairs.open(store, 'train').row(i, 64)['tokens'].tobytes() for i in range(count)]
  assert sorted(first) == sorted(second) == sorted(wanted) and first != second != wanted
  assert [again[i]['tokens'].tobytes() for i in reversed(range(count))] == first[::-1]
  assert first != [PairRows(pairs, seed=4).visits(store)[i]['tokens'].tobytes() for i in range(count)]
  assert visits.describe(count).startswith('pair ') and 'epoch 1: pairs:pairs:' in visits.describe(count)


def test_batches_lie_on_the_mesh_and_go_on_where_they_stopped(shared):
  _, _, scored, store = shared
  mesh = MeshShape(data=8, fsdp=1).build(jax.devices())
  source = PairRows(scored).source(store, batch=8, mesh=mesh)
  one = source()
  assert {name: value.shape for name, value in one.items()} == {
    'tokens': (8, 2, 64), 'segments': (8, 2, 64), 'mask': (8, 2, 64), 'margin': (8,), 'label': (8,), 'reference': (8, 2),
    'record': (8,)}
  assert len(one['tokens'].sharding.device_set) == 8
  position, two = source.save(), source()
  source.load(position)
  jax.tree.map(np.testing.assert_array_equal, source(), two)
  source.close()
  other = Batches(PairRows(scored, seed=1).visits(store), 8)
  with pytest.raises(CheckpointError, match='seed was 0, is 1'):
    other.load(position)


def test_the_cached_reference_is_the_live_one(shared):
  """So DPO begins at ln 2 with it, the last lot, filled up, included."""
  pairs, parent, scored, store = shared
  trained = load(parent, store)
  loss = jax.jit(lambda params, batch: DPO(beta=1.0)(trained.model)(params, {}, batch, jax.random.key(0)))
  for split in ('train', 'heldout'):
    opened, weight = scored.open(store, split), 0.0
    assert len(opened) == len(pairs.open(store, split)) and len(opened) % 3
    for batch in in_batches(all_rows(opened, 64), 3):
      found = loss(trained.params, batch)
      np.testing.assert_allclose(found.objective.value(), np.log(2), rtol=1e-5)
      weight += float(found.objective.weight)
    assert weight == len(opened)
  row = jax.tree.map(lambda x: x[None], opened.row(len(opened) - 1, 64))
  np.testing.assert_allclose(pair_logps(trained.model, trained.params, row).logp_BP, row['reference'], rtol=1e-5)
  assert (row['reference'] < -1).all()


def test_a_reference_of_other_pairs_or_parents_is_another_thing(shared):
  pairs, parent, scored, _ = shared
  others = [replace(scored, by=replace(parent, seed=1)), replace(scored, pairs=replace(pairs, longest=63))]
  assert len({digest(each) for each in (scored, *others, replace(scored, batch=5))}) == 3
  renamed = replace(pairs, vocabulary=replace(pairs.vocabulary, size=350))
  with pytest.raises(ConfigError, match='its parameters know the ids'):
    replace(scored, pairs=renamed)
  with pytest.raises(ConfigError, match='batch = 0'):
    replace(scored, batch=0)


def test_a_changed_reference_is_found(shared):
  _, _, scored, store = shared
  check_noticed(store.find(scored) / 'heldout.reference.npy', lambda: scored.open(store, 'heldout'))


def test_a_batch_of_more_pairs_than_there_are_is_refused(shared):
  pairs, _, _, store = shared
  with pytest.raises(DataError, match=r'data\.too-small'):
    Batches(PairRows(pairs).visits(store), 64)


def going(shared, root, **fields) -> tuple[Run, Store]:
  """A run from the parent on the scored pairs, and a store that has both."""
  _, parent, scored, store = shared
  run = Run(**({'name': 'learns', 'model': parent.model, 'rows': PairRows(scored), 'objective': DPO(), 'batch': 8, 'steps': 24,
                          'optimizer': Optimizer(AdamW(lr=1e-2)), 'restore': parent, 'saving': Saving(every=0),
                          'watch': Watch(metrics=1, heldout=0)} | fields))
  return run, Store(root, (store.root,))


@pytest.mark.parametrize('fields', [{}, {'objective': RewardModel(margin=0.0), 'edits': (Score(),)}], ids=['dpo', 'reward'])
def test_a_run_learns_from_pairs_through_the_ordinary_loop(shared, tmp_path, fields):
  """Its fields are what a run.json may say, it begins near ln 2, and it agrees with pairs that it never saw."""
  run, store = going(shared, tmp_path, **fields)
  assert all(fits(getattr(run, name), hint) for name, hint in hints(Run).items())
  folder = store.make(run)
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  losses = [line['loss'] for line in lines if 'loss' in line]
  assert len(losses) == 24 and abs(losses[0] - np.log(2)) < (1e-3 if not fields else 0.4) and losses[-1] < losses[0] - 0.2
  assert ('score' in load(run, store).params) == bool(fields)
  report = read_json(store.make(Agreement(name='agreement', run=run, batch=4)) / 'agreement.json')
  assert report['pairs'] == len(shared[0].open(store, 'heldout')) and report['means']['accuracy'] > 0.9
  assert report['means']['loss'] < np.log(2) - 0.2


def test_agreement_is_a_mean_over_pairs_and_not_over_lots(shared):
  _, parent, scored, store = shared
  pairs, trained = scored.open(store, 'heldout'), load(parent, store)
  loss_fn = SimPO()(trained.model)
  one, several = (Means(loss_fn)(trained.params, in_batches(all_rows(pairs, 64), size)) for size in (len(pairs), 3))
  assert len(pairs) % 3 and one == pytest.approx(several, rel=1e-5)
  rows = [pairs.row(pair, 64)['mask'].sum(1).tolist() for pair in range(len(pairs))]
  assert longer(pairs, 64) == np.mean([(chosen > rejected) + (chosen == rejected) / 2 for chosen, rejected in rows])


def test_a_run_without_what_its_objective_needs_is_refused(shared, tmp_path):
  pairs, parent, _, _ = shared
  run, _ = going(shared, tmp_path)
  for fields, id in (({'objective': RewardModel()}, 'config.score'),
                     ({'edits': (Score(),)}, 'config.score'),
                     ({'rows': PairRows(pairs)}, 'dpo.no-reference'), ({'objective': NextToken()}, 'config.rows'),
                     ({'restore': replace(parent, seed=1)}, 'config.other-reference')):
    with pytest.raises(ConfigError) as caught:
      replace(run, **fields)
    assert caught.value.id == id
  assert replace(run, rows=PairRows(pairs), edits=(LoRA(),)) and replace(run, rows=PairRows(pairs), objective=SimPO())
