"""Avoiding something: what is forbidden is paid for and never learnt, at a price that keeps the limit and survives a cut."""

import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align.avoid import Avoid, Probability, Unlikelihood
from align.avoid_rows import AvoidRows, counted
from align.constraint import PID, Penalty
from align.forbidden import Patterns
from align.marks import marked
from model.errors import CheckpointError, ConfigError, DataError
from model.sharding import MeshShape
from tests.align.rollouts import opened
from tests.data.fake_corpus import made
from tests.model.variants import small
from tests.train.going_on import check_goes_on
from train.data.rows import Rows
from train.objectives import NextToken
from train.optimizer import AdamW, Optimizer
from train.run import Run, Saving, Watch
from train.step import accumulate, gradient
from train.typecheck import fits, hints

UNION = Patterns(('union',))


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """(a run that avoids a word, the store), a parent that knows it made."""
  tokens, store = made(tmp_path_factory.mktemp('avoid'))
  parent = Run(name='parent', model=small(vocab=340, layers=1), rows=Rows(tokens, 32), batch=8, steps=150,
               optimizer=Optimizer(AdamW(lr=2e-2)), watch=Watch(heldout=0), saving=Saving(every=0))
  rows = AvoidRows(Rows(marked(tokens, UNION), 32), most=0.05, multiplier=PID(2.0, 0.5), probe=8, every=2, written=4)
  run = replace(parent, name='avoids', restore=parent, rows=rows, objective=Avoid(), steps=30, saving=Saving(every=15),
                watch=Watch(heldout=30, heldout_rows=8, metrics=1))
  store.make(parent)
  store.make(rows.rows.tokens)
  return run, store


@pytest.fixture(scope='module')
def step(world):
  """(model, params, a batch) at a price of 0.7."""
  run, store = world
  setting, source, state = opened(replace(run, rows=replace(run.rows, multiplier=Penalty(0.7))), store)
  with jax.set_mesh(setting.built.mesh):
    batch = jax.device_get(source(state))
  source.close()
  return setting.built.model, state.params, batch


def loss_of(objective, model, params, batch):
  return jax.jit(objective(model))(params, {}, batch, jax.random.key(0))


def test_charges_are_what_they_are_called():
  logp = jnp.log(jnp.array([0.0, 1e-6, 0.5, 0.9, 1.0]))
  np.testing.assert_allclose(Unlikelihood()(logp)[:4], [0, 1e-6, np.log(2), np.log(10)], rtol=1e-4, atol=1e-8)
  np.testing.assert_allclose(Probability()(logp), [0, 1e-6, 0.5, 0.9, 1], rtol=1e-5)
  logits = jnp.array([2.0, -1.0, 0.3])
  p = jax.nn.softmax(logits)[0]
  slopes = [jax.grad(lambda logits, charge=charge: charge(jax.nn.log_softmax(logits)[0]))(logits)[0]
            for charge in (Unlikelihood(), Probability())]
  np.testing.assert_allclose(slopes, [p, p * (1 - p)], rtol=1e-5)
  assert np.isfinite([Unlikelihood()(jnp.zeros(())), jax.grad(lambda x: Unlikelihood()(x))(jnp.zeros(()))]).all()


@pytest.mark.parametrize('charge', [Unlikelihood(), Probability()], ids=lambda each: type(each).__name__)
def test_the_loss_by_hand(step, charge):
  """Allowed tokens by their log-prob, forbidden ones by the charge of theirs, over the number of allowed ones."""
  model, params, batch = step
  loss = loss_of(Avoid(charge), model, params, batch)
  x_BLD = jax.jit(model.hidden)(params, batch['tokens'][:, :-1], batch['segments'][:, :-1]).x_BLD
  every_BLV = jax.nn.log_softmax(model.logits(params, x_BLD), -1)
  logp_BL = np.asarray(jnp.take_along_axis(every_BLV, batch['tokens'][:, 1:, None], -1)[..., 0])
  segments, forbidden = batch['segments'], batch['forbidden'][:, 1:] > 0
  inside = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  p = np.exp(logp_BL[inside & forbidden])
  paid = -np.log(1 - p) if isinstance(charge, Unlikelihood) else p
  nll = -logp_BL[inside & ~forbidden]
  assert len(p) > 3 and loss.objective.value() == pytest.approx((nll.sum() + 0.7 * paid.sum()) / len(nll), rel=1e-4)
  seen = {name: float(mean.value()) for name, mean in loss.metrics.items()}
  assert seen['nll'] == pytest.approx(nll.mean(), rel=1e-4) and seen['forbidden_p'] == pytest.approx(p.mean(), rel=1e-3)
  assert seen['forbidden'] == pytest.approx(paid.mean(), rel=1e-3)
  measured = jax.jit(partial(Avoid(charge).measured, model))(params, batch)
  assert measured.value() == pytest.approx(paid.mean(), rel=1e-3)


def test_where_nothing_is_forbidden_nothing_is_paid_and_it_is_the_next_token(step):
  model, params, batch = step
  clean = batch | {'forbidden': np.zeros_like(batch['forbidden'])}
  for price in (0.0, 5.0):
    loss = loss_of(Avoid(), model, params, clean | {'price': np.full(8, price, np.float32)})
    plain = loss_of(NextToken(), model, params, batch)
    assert loss.objective.value() == pytest.approx(float(plain.objective.value()), rel=1e-6)
    assert loss.metrics['forbidden'].value() == 0 and loss.metrics['forbidden'].weight == 0


def test_parts_and_padding_change_nothing(step):
  model, params, batch = step
  take = gradient(Avoid()(model))
  batch = jax.tree.map(jnp.asarray, batch)
  (whole, loss), (parts, summed) = (jax.jit(each)(params, {}, batch, jax.random.key(0)) for each in (take, accumulate(take, 4)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), parts, whole)
  longer = {name: jnp.pad(column, [(0, 2)] + [(0, 9)] * (column.ndim - 1)) for name, column in batch.items()}
  padded = loss_of(Avoid(), model, params, longer)
  for other in (summed, padded):
    assert other.objective.value() == pytest.approx(float(loss.objective.value()), rel=1e-4)
    assert other.metrics['forbidden'].weight == loss.metrics['forbidden'].weight > 0


def test_the_price_is_that_of_the_augmented_lagrangian():
  """((m + rho e)+^2 - m^2) / 2 rho, e = cost(x) - most: its slope is the price of PID(rho, step) times that of the cost."""
  rho, step, most = 3.0, 0.5, 0.2
  memory = PID(rho, step).begin()
  for x in (0.9, 0.4, 0.1, 0.0):
    memory = PID(rho, step).next(memory, x ** 2 - most)
    held = step * memory[1]
    slope = jax.grad(lambda x, held: (jax.nn.relu(held + rho * (x ** 2 - most)) ** 2 - held ** 2) / (2 * rho))(x, held)
    assert PID(rho, step).value(memory) * 2 * x == pytest.approx(float(slope), abs=1e-6)


def test_a_price_that_stays_and_one_that_was_too_high_for_long():
  assert Penalty(3.0).value(Penalty(3.0).next(Penalty(3.0).begin(), 7.0)) == 3.0
  memory = PID(0.0, 1.0, most=10.0).begin()
  for excess in [1.0] * 1000 + [-1.0] * 10:
    memory = PID(0.0, 1.0, most=10.0).next(memory, excess)
  assert PID(0.0, 1.0, most=10.0).value(memory) == 0


def test_a_run_keeps_the_limit_on_held_out_rows_and_goes_on_to_the_same_bits(world):
  """Cut off after 15 of 30 steps and gone on, from a parent that says the word where it stands."""
  run, store = world
  assert all(fits(getattr(run, name), hint) for name, hint in hints(Run).items())
  folder = store.make(run)
  check_goes_on(run, store)
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  steps, held = ([line for line in lines if name in line] for name in ('multiplier', 'heldout_forbidden'))
  assert steps[0]['constraint'] > 0.2 and max(line['multiplier'] for line in steps) > 0.5
  assert held[-1]['heldout_forbidden'] < 0.1 and held[-1]['heldout_nll'] < steps[0]['nll'] + 1.0
  assert 0 <= held[-1]['heldout_written'] <= 1


def test_a_position_is_all_that_the_next_batches_depend_on(world):
  run, store = world
  setting, source, state = opened(run, store)
  with jax.set_mesh(setting.built.mesh):
    for _ in range(3):
      source(state)
    position = json.loads(json.dumps(source.save()))
    other = run.rows.open(setting)
    other.load(position)
    found, wanted = ([jax.device_get(each(state)) for _ in range(3)] for each in (other, source))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    prices = [float(batch['price'][0]) for batch in wanted]
    assert source.save() == other.save() and prices[0] < prices[1] == prices[2]           # measured every second step
    assert all(np.ptp(batch['price']) == 0 and batch['price'].shape == (8,) for batch in wanted)
    with pytest.raises(CheckpointError, match=r'forbidden\.other'):
      replace(run.rows, most=0.5).open(setting).load(position)
  for each in (source, other):
    each.close()


def test_the_devices_change_nothing(world):
  run, store = world
  found = []
  for devices, mesh in ((1, MeshShape()), (8, MeshShape(data=2, fsdp=2, tensor=2))):
    setting, source, state = opened(replace(run, mesh=mesh), store, jax.devices()[:devices])
    with jax.set_mesh(setting.built.mesh):
      batch = source(state)
      found.append((source.constraint, float(batch['price'][0]), np.asarray(batch['tokens']).tolist()))
    source.close()
  assert found[0][2] == found[1][2] and found[0][:2] == pytest.approx(found[1][:2], rel=1e-3)


def test_rows_that_are_measured_have_something_to_measure(world):
  run, store = world
  rows = run.rows.probed(store)
  assert len(rows) == 8 and all(counted(row) for row in rows)
  none = replace(run.rows, rows=Rows(marked(run.rows.rows.tokens.tokens, Patterns(('unheard of',)), name='none'), 32))
  store.make(none.rows.tokens)
  with pytest.raises(DataError, match=r'forbidden\.none'):
    none.probed(store)


def test_settings_and_rows_that_do_not_go_together_are_refused(world):
  run, _ = world
  plain = Rows(run.rows.rows.tokens.tokens, 32)
  for wrong, id in ((lambda: replace(run, objective=NextToken()), 'config.rows'),
                    (lambda: replace(run, rows=plain), 'config.rows'), (lambda: AvoidRows(plain), 'forbidden.not-marked'),
                    (lambda: replace(run.rows, every=0), 'config.bad-value'),
                    (lambda: Penalty(-1.0), 'config.bad-value'), (lambda: Avoid(z_loss=-1.0), 'config.bad-value')):
    with pytest.raises(ConfigError) as caught:
      wrong()
    assert caught.value.id == id
