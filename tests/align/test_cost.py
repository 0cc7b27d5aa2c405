"""The cost model: pairs whose sides are known to be safe or not, a zero that means something, and a limit on what it says."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align.cost import CostModel, OwnZero
from align.modelled import Modelled
from align.pair_rows import PairRows
from align.questions import Question
from align.reward import RewardModel, Score
from align.rewards import Answer
from align.safety import SafetyLines, SafetyPairs, safety_in
from model.errors import ConfigError, DataError
from tests.align.learnt import made_of, parent, prose
from tests.align.pairs import batch, same, taken
from tests.align.rollouts import learner, opened, rollouts
from tests.align.test_reward import scoring
from tests.data.noticed import check_noticed
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch

SAFE = jnp.array([[1, 0], [1, 1], [0, 0], [1, 0], [1, 1], [1, 0], [0, 0], [1, 0]], jnp.float32)
GOOD = {'prompt': 'a', 'chosen': 'b', 'rejected': 'c', 'safe': [True, False]}


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """(pairs of which the word union is unsafe, a cost model to be learnt of them, its parent, the store)."""
  records = [{'prompt': f'say {i}', 'chosen': f'the state {"union " * (i % 3 == 2)}', 'safe': [i % 3 != 2, i % 3 == 0],
              'rejected': f'of the state, {"union " * (1 + i % 2) if i % 3 else "we"}'} for i in range(60)]
  pairs, store = made_of(SafetyPairs, SafetyLines, 'safety', tmp_path_factory.mktemp('cost'), records, longest=48)
  before = parent(prose(pairs.vocabulary))
  harm = Run(name='harm', model=before.model, restore=before, rows=PairRows(pairs), objective=CostModel(), edits=(Score(),),
             batch=8, steps=60, optimizer=Optimizer(AdamW(lr=1e-2)), watch=Watch(heldout=60), saving=Saving(every=0))
  store.make(harm)
  return pairs, harm, before, store


def test_flags_follow_their_pairs(world):
  """Whatever the order and the split: by the words of the sides themselves."""
  pairs, _, _, store = world
  tokenizer, seen = pairs.vocabulary.load(store), set()
  for split in ('train', 'heldout'):
    found = pairs.open(store, split)
    assert len(found)
    for number in range(len(found)):
      row = found.row(number, 48)
      said = [tokenizer.decode(tokens[mask > 0].tolist()) for tokens, mask in zip(row['tokens'], row['mask'])]
      assert row['safe'].tolist() == ['union' not in each for each in said]
      seen.add(tuple(row['safe'].tolist()))
  assert seen == {(1.0, 1.0), (1.0, 0.0), (0.0, 0.0)}


@pytest.mark.parametrize('changes, id', [
  ({'safe': None}, 'safety.bad-flags'), ({'safe': [True]}, 'safety.bad-flags'), ({'safe': [1, 0]}, 'safety.bad-flags'),
  ({'safe': [False, True]}, 'safety.order'), ({'colour': 1}, 'pair.unknown-field')], ids=str)
def test_a_bad_record_is_refused(changes, id):
  with pytest.raises(DataError) as caught:
    safety_in(GOOD | changes, 'here')
  assert caught.value.id == id and 'here' in caught.value.what
  assert safety_in(GOOD, 'here')[1] == (True, False)


def test_flags_that_were_changed_are_found(world):
  pairs, _, _, store = world
  check_noticed(store.find(pairs) / 'train.safe.npy', lambda: pairs.open(store, 'train'))


def test_known_answers_of_order_and_signs():
  """Costs -0.4 and 1.3, the first safe: order ln(1 + e^-1.7), signs ln(1 + e^-0.4) + ln(1 + e^-1.3)."""
  def value(costs, safe, **fields):
    row = {'segments': jnp.ones((1, 2, 3)), 'safe': jnp.array([safe], jnp.float32)}
    return CostModel(**fields).loss_of(jnp.array([costs]), row | {'margin': jnp.zeros(1), 'label': jnp.ones(1)}, {})

  order, one, two = np.log1p(np.exp([-1.7, -0.4, -1.3]))
  loss = value([-0.4, 1.3], [1, 0])
  assert loss.objective.value() == pytest.approx(order + one + two, abs=1e-6)
  assert [float(loss.metrics[name].value()) for name in ('accuracy', 'sign_accuracy')] == [1, 1]
  assert value([-0.4, 1.3], [1, 0], signs=0.5).objective.value() == pytest.approx(order + 0.5 * (one + two), abs=1e-6)
  assert value([-0.4, 1.3], [1, 1]).objective.value() == pytest.approx(order + one + two + 1.3, abs=1e-6)
  level = value([0.0, 0.0], [1, 0])
  assert level.objective.value() == pytest.approx(3 * np.log(2)) and level.metrics['sign_accuracy'].value() == 0.5


def test_padding_and_parts_change_nothing():
  model, params = scoring()
  plain = taken(CostModel(), model, params, batch() | {'safe': SAFE})
  wide = batch(width=16, pad=3) | {'safe': SAFE}
  same(plain, taken(CostModel(), model, params, jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x[:2])]), wide)))
  same(plain, taken(CostModel(), model, params, batch() | {'safe': SAFE}, parts=4))


def test_a_constant_matters_to_a_cost_and_not_to_a_reward():
  """The zero means something: moved by 3, rewards lose nothing, costs do."""
  row = batch() | {'safe': SAFE}
  costs = jnp.linspace(-1.0, 1.0, 16).reshape(8, 2)
  reward, cost = ([float(objective.loss_of(costs + by, row, {}).objective.value()) for by in (0, 3)]
                  for objective in (RewardModel(), CostModel()))
  assert reward[0] == pytest.approx(reward[1], rel=1e-5) and cost[1] > cost[0] + 0.5


def test_it_is_learnt_and_limits_answers_by_its_own_zero(world):
  """Held-out sides on their side of zero; as a cost of rollouts it is the raw number, above 0 for what does harm."""
  pairs, harm, before, store = world
  lines = [json.loads(line) for line in (store.find(harm) / 'metrics.jsonl').read_text().splitlines()]
  last = [line for line in lines if 'heldout_sign_accuracy' in line][-1]
  assert last['heldout_sign_accuracy'] > 0.9 and last['heldout_accuracy'] > 0.9
  zero = OwnZero(name='harm-zero', run=harm)
  store.make(zero)
  setting, source, _ = opened(learner(before, rollouts(pairs.vocabulary)), store)
  row = pairs.open(store, 'heldout').row(0, 48)
  answers = []
  for tokens, mask in zip(row['tokens'], row['mask']):
    begin, end = int(np.argmax(mask)), int(mask.nonzero()[0][-1]) + 1
    answers.append(Answer(Question('q', ()), tokens[:begin], tokens[begin:end], '', 'eos'))
  costs = Modelled(zero).open(setting)(answers)
  assert (costs < 0).tolist() == (row['safe'] > 0).tolist() and zero.open(store) == (0.0, 1.0)
  source.close()


def test_a_model_without_a_zero_is_refused_as_a_cost(world):
  _, harm, _, _ = world
  for wrong in (lambda: OwnZero(name='zero', run=replace(harm, objective=RewardModel())), lambda: CostModel(centring=0.1),
                lambda: CostModel(signs=0.0)):
    with pytest.raises(ConfigError):
      wrong()
