"""Rollouts: what was sampled is what is learnt, at any size, on any devices, before and after a cut."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align.average import PerToken
from align.constraint import Limit
from align.credit import FromCritic, Grouped, LeaveOneOut
from align.critic import Critic
from align.kl import Fixed
from align.policy import GRPO, PPO, PerSequence
from align.rewards import Length
from align.sampler import Reader, laid
from model.adapt import LoRA
from model.errors import CheckpointError, ConfigError
from model.quantize import Quantize
from model.sharding import MeshShape
from tests.align.rollouts import learner, opened, rollouts, taken
from tests.train.going_on import check_goes_on
from train.build import compiled
from train.data.pipeline import Placement
from train.edits import join
from train.run import Watch

PRICED = GRPO(beta=0.1)


@pytest.fixture(scope='module')
def grpo(world):
  """A GRPO run, opened, with its first iteration's batches."""
  before, store, vocabulary = world
  run = learner(before, rollouts(vocabulary), objective=PRICED)
  setting, source, state = opened(run, store)
  with jax.set_mesh(setting.built.mesh):
    batches = [source(state) for _ in range(4)]
  return run, setting, source, state, batches


def test_the_first_step_is_on_policy(grpo):
  """Ratio 1, nothing clipped, no distance from the reference, and sampling and learning agree on every log-prob."""
  _, setting, _, state, batches = grpo
  seen = taken(setting, state, batches[0])
  assert seen['ratio'] == pytest.approx(1, abs=1e-6) and seen['clipped'] == 0 and abs(seen['kl']) < 1e-5
  assert seen['sampler_gap'] < 1e-5 and seen['moved'] < 1e-10
  np.testing.assert_allclose(batches[0]['correction'], 1, atol=1e-5)
  other = taken(setting, state, batches[1])
  assert seen['loss'] + other['loss'] == pytest.approx(0, abs=1e-5) and min(seen['grad_norm'], other['grad_norm']) > 1e-3


def test_an_inner_epoch_has_every_answer_once_in_an_order_of_its_own(grpo):
  run, _, source, _, batches = grpo
  first, second = (np.concatenate([np.asarray(batch['logp']).sum(1) for batch in half]) for half in (batches[:2], batches[2:]))
  assert len(set(first.tolist())) == 16 and set(first.tolist()) == set(second.tolist()) and first.tolist() != second.tolist()
  assert run.rows.answers == 16 and source.describe(0).startswith('iteration 0, answer ')


def test_the_reference_and_the_old_policy_are_no_part_of_the_gradient(grpo):
  """A step by hand on the same batch: the clipped gradient and k3, from the columns alone."""
  _, setting, _, state, batches = grpo
  batch, model = batches[0], setting.built.model

  def by_hand(params):
    x_BLD = model.hidden(params, batch['tokens'][:, :-1], batch['segments'][:, :-1]).x_BLD
    every_BLV = jax.nn.log_softmax(model.logits(params, x_BLD), -1)
    logp_BL = jnp.take_along_axis(every_BLV, batch['tokens'][:, 1:, None], -1)[..., 0]
    mask_BL = batch['mask'][:, 1:]
    ratio_BL = jnp.exp(logp_BL - batch['logp'][:, 1:])
    gap_BL = logp_BL - batch['ref'][:, 1:]
    loss_BL = -batch['advantage'][:, 1:] * ratio_BL + 0.1 * (jnp.exp(-gap_BL) - 1 + gap_BL)
    return (jnp.where(mask_BL > 0, loss_BL, 0).sum(1) / mask_BL.sum(1)).mean()

  grads = jax.jit(jax.grad(by_hand))(state.params)
  norm = float(jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(grads))))
  assert taken(setting, state, batch)['grad_norm'] == pytest.approx(norm, rel=1e-4)


def test_a_wrong_temperature_would_be_seen(world):
  """At 0.5 the log-probs of sampling are those of learning; read at 1 they are not."""
  before, store, vocabulary = world
  run = learner(before, rollouts(vocabulary, temperature=0.5, epochs=1, kl=Fixed(0.0)), objective=GRPO(temperature=0.5))
  setting, source, state = opened(run, store)
  with jax.set_mesh(setting.built.mesh):
    batch = source(state)
    assert taken(setting, state, batch)['sampler_gap'] < 1e-5
    other = Reader(setting.built.model, 1.0, Placement(setting.built.mesh, 8))
    columns = {name: np.asarray(batch[name]) for name in ('tokens', 'segments', 'mask')}
    assert np.abs(other(state.params, columns).logp - batch['logp']).max() > 0.1
  with pytest.raises(ConfigError, match=r'config\.temperature'):
    replace(run, objective=GRPO())


@pytest.mark.campaign
def test_room_for_longer_texts_changes_nothing(world):
  before, store, vocabulary = world
  found = []
  for prompt_tokens in (48, 60):
    setting, source, state = opened(learner(before, rollouts(vocabulary, prompt_tokens=prompt_tokens)), store)
    with jax.set_mesh(setting.built.mesh):
      found.append(taken(setting, state, source(state)))
  assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-5)


def test_the_devices_and_the_parts_change_nothing(world):
  before, store, vocabulary = world
  found = []
  for devices, fields in ((1, {}), (8, {'mesh': MeshShape(data=2, fsdp=2, tensor=2), 'parts': 2})):
    run = learner(before, rollouts(vocabulary), **fields)
    setting, source, state = opened(run, store, jax.devices()[:devices])
    with jax.set_mesh(setting.built.mesh):
      batch = source(state)
      found.append((np.asarray(batch['tokens']), taken(setting, state, batch)))
  for tokens, seen in found[1:]:
    np.testing.assert_array_equal(tokens, found[0][0])
    assert seen == pytest.approx(found[0][1], rel=1e-3, abs=2e-5)


@pytest.mark.parametrize('served', [pytest.param(2, marks=pytest.mark.campaign), 5])
def test_a_position_is_all_that_the_next_batches_depend_on(world, served):
  """In the middle of an inner epoch and of an iteration, with a price of distance and multipliers that have moved."""
  before, store, vocabulary = world
  rows = rollouts(vocabulary, limits=(Limit('long', Length(1.0), most=2.0),))
  run = learner(before, rows, objective=PRICED)
  setting, source, state = opened(run, store)
  with jax.set_mesh(setting.built.mesh):
    for _ in range(served):
      source(state)
    position = json.loads(json.dumps(source.save()))
    other = rows.open(setting)
    other.load(position)
    wanted, found = ([jax.device_get(each(state)) for _ in range(4)] for each in (source, other))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert source.save() == other.save() and position['beta'] != rows.kl.beta and position['multipliers'] != [[0.0, 0.0, 0.0]]
    assert wanted[-1]['seen/multiplier/long'][0] > 0 and wanted[-1]['seen/cost/long'].shape == (8,)
    with pytest.raises(CheckpointError, match=r'rollout\.other'):
      replace(rows, seed=1).open(setting).load(position)
    with pytest.raises(CheckpointError, match=r'rollout\.damaged'):
      other.load(position | {'buffer': {'tokens': {'dtype': '<i4', 'shape': [16, 54], 'zlib': 'AAAA'}}})


def test_cut_off_in_an_iteration_and_gone_on_is_as_never_stopped(world):
  """Through the ordinary loop: PPO, saved after 3 of 4 batches of an iteration. The ledger would refuse other bits."""
  before, store, vocabulary = world
  run = learner(before, rollouts(vocabulary, credit=FromCritic()), objective=PPO(), edits=(Critic(),),
                watch=Watch(heldout=3, heldout_rows=4, metrics=1))
  folder = store.make(run)
  check_goes_on(run, store)
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  names = set().union(*lines)
  assert {'ratio', 'clipped', 'kl', 'kl_price', 'reward', 'reward/letters', 'reward/right', 'explained/reward', 'answer_tokens',
          'value_loss/reward', 'heldout_reward', 'heldout_right', 'heldout_kl'} <= names
  first = next(line for line in lines if 'ratio' in line)
  assert first['value/reward'] == 0 and first['ratio'] == pytest.approx(1, abs=1e-6)


@pytest.mark.campaign
def test_several_steps_are_several_steps(world):
  """An iteration of two inner epochs, by the source, is its four batches taken one after another."""
  before, store, vocabulary = world
  setting, source, state = opened(learner(before, rollouts(vocabulary)), store)
  with jax.set_mesh(setting.built.mesh):
    step = compiled(setting.built)
    old = None
    for place in range(4):
      batch = jax.device_get(source(state))
      assert place == 0 or set(batch['logp'].sum(1).tolist()) <= old
      old = old or set(np.asarray(source.buffer['logp']).sum(1).tolist())
      state, metrics = step(state, setting.frozen, batch)
    assert float(metrics['moved'].value()) > 1e-6 and float(metrics['ratio'].value()) != 1
    source(state)
    assert set(np.asarray(source.buffer['logp']).sum(1).tolist()).isdisjoint(old)


def test_adapters_policy_critic_and_reference_share_one_base(world):
  """The reference is the base, the critic adapters over it; neither is in memory a second time, nor in the optimizer."""
  before, store, vocabulary = world
  run = learner(before, rollouts(vocabulary, credit=FromCritic()), objective=PPO(), edits=(Quantize('int8'), LoRA(2), Critic()))
  setting, source, state = opened(run, store)
  with jax.set_mesh(setting.built.mesh):
    seen = taken(setting, state, source(state))
  assert abs(seen['kl']) < 1e-5 and seen['value/reward'] == 0 and seen['value_loss/reward'] > 0
  assert run.rows.holds(run, setting.built) == {} and source.crew.kept is None
  learnt = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)}
  assert any('critics' in name for name in learnt) and all('.a' in n or '.b' in n or 'score' in n for n in learnt)
  whole = join(state.params, setting.frozen)
  assert 'critics' in whole and whole['critics']['reward']['layers']['mlp']['up']['weight'].base is None
  full = replace(run, edits=(Critic(),))
  assert list(full.rows.holds(full, full.build())) == ['the reference']


@pytest.mark.parametrize('objective, credit', [
  (GRPO(average=PerToken(), high=0.28, cap=3.0), Grouped(deviation='none')),
  pytest.param(GRPO(ratio=PerSequence(), low=3e-4, high=4e-4), Grouped(), marks=pytest.mark.campaign),
  (GRPO(entropy=0.1), LeaveOneOut())], ids=['dapo', 'gspo', 'rloo'])
def test_the_family_takes_a_step_from_where_it_is(world, objective, credit):
  before, store, vocabulary = world
  setting, source, state = opened(learner(before, rollouts(vocabulary, credit=credit), objective=objective), store)
  with jax.set_mesh(setting.built.mesh):
    seen = taken(setting, state, source(state))
  assert seen['ratio'] == pytest.approx(1, abs=1e-6) and np.isfinite(list(seen.values())).all() and seen['grad_norm'] > 0


def test_sampled_ids_are_kept_as_they_are(grpo):
  """What is learnt is what was drawn, end of turn included, whether or not the text would be encoded that way."""
  _, setting, source, state, _ = grpo
  questions = [source.questions(number) for number in range(3)]
  with jax.set_mesh(setting.built.mesh):
    lot = source.crew.write(state.params, questions, jax.random.split(jax.random.key(0), 3))
  columns = laid(lot.answers, 54)
  for row, answer in enumerate(lot.answers):
    begin, end = len(answer.prompt), len(answer.prompt) + len(answer.ids)
    assert columns['tokens'][row, begin:end].tolist() == answer.ids.tolist()
    assert columns['mask'][row].sum() == len(answer.ids) and columns['mask'][row, begin:end].all()
    assert columns['segments'][row].sum() == end and len(lot.logps[row]) == len(answer.ids)
