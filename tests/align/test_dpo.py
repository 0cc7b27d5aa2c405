"""DPO and its family: what is summed, what it is compared with, and that a preference is learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from align import losses
from align.answer_logps import pair_logps, reference_logps
from align.dpo import DPO, IPO, ORPO, Compared, Hinge, SimPO
from model.config import Gated, MoE
from model.errors import ConfigError
from tests.align.pairs import batch, check_invariant, check_own_reference, same, swapped, taken
from tests.model.variants import made, small
from train.objectives import shift
from train.step import born, gradient, make_step

MODEL, PARAMS = made(small(layers=1))
LOGPS = jax.jit(lambda params, sides: pair_logps(MODEL, params, sides))
FAMILY = [DPO(), DPO(smoothing=0.2), IPO(), Hinge(), SimPO(), ORPO()]
EACH = pytest.mark.parametrize('objective', FAMILY, ids=str)


def referred(params=PARAMS, sides=None) -> dict:
  """A batch whose reference are these parameters."""
  sides = batch() if sides is None else sides
  return sides | {'reference': LOGPS(params, sides).logp_BP}


def test_log_probs_are_sums_over_answers_and_nothing_else():
  sides = batch()
  found = LOGPS(PARAMS, sides)
  row = shift({name: sides[name].reshape(-1, 10) for name in ('tokens', 'segments', 'mask')})
  logits_RLV = jax.jit(lambda *row: MODEL.logits(PARAMS, MODEL.hidden(PARAMS, *row).x_BLD))(row.inputs_BL, row.segments_BL)
  logp_RL = jnp.take_along_axis(jax.nn.log_softmax(logits_RLV), row.targets_BL[..., None], -1)[..., 0]
  for pair, lengths in enumerate(np.asarray(sides['segments'].sum(-1))):
    for side, length in enumerate(lengths):
      wanted = logp_RL[2 * pair + side, 1:length - 1].sum()      # the prompt has 2 tokens, and targets begin with the second
      np.testing.assert_allclose(found.logp_BP[pair, side], wanted, rtol=1e-5)
      assert found.tokens_BP[pair, side] == length - 2


def test_an_answer_of_a_conversation_leaves_out_what_the_user_says_in_it():
  sides = batch()
  fewer = sides | {'mask': sides['mask'].at[:, :, 3].set(0)}
  difference = LOGPS(PARAMS, sides).tokens_BP - LOGPS(PARAMS, fewer).tokens_BP
  assert (difference == 1).all()


@pytest.mark.parametrize('objective, start', [(DPO(), np.log(2)), (DPO(beta=3.0, smoothing=0.3), np.log(2)), (IPO(0.1), 25.0),
                                              (Hinge(), 1.0)])
def test_where_the_policy_is_its_reference(objective, start):
  _, loss = taken(objective, MODEL, PARAMS, referred())
  np.testing.assert_allclose(loss.objective.value(), start, rtol=1e-5)
  assert float(loss.objective.weight) == 8
  np.testing.assert_allclose(loss.metrics['reward_gap'].value(), 0, atol=1e-6)


@EACH
def test_known_answers(objective):
  """The pure losses, of sums or of means as each paper has it."""
  sums, refs, counts = jnp.array([[-10.0, -14.0]]), jnp.array([[-11.0, -13.0]]), jnp.array([[5.0, 4.0]])
  chosen, rejected, ref_chosen, ref_rejected = (jnp.array([x]) for x in (-10.0, -14.0, -11.0, -13.0))
  means = [jnp.array([x]) for x in (-2.0, -3.5, -2.2, -3.25)]
  smoothing = objective.smoothing if isinstance(objective, DPO) else 0.0
  wanted = {
    DPO: lambda: losses.dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1, smoothing=smoothing),
    IPO: lambda: (0.2 + 0.25 - 5.0) ** 2, Hinge: lambda: 0.8, SimPO: lambda: np.log1p(np.exp(-(2.0 * 1.5 - 1.0))),
    ORPO: lambda: 2.0 + 0.1 * losses.orpo_odds(*means[:2])}[type(objective)]()
  loss = objective.loss_of(Compared(sums, refs, counts), jnp.ones(1), jnp.ones(1), {})
  np.testing.assert_allclose(loss.objective.value(), np.ravel(wanted)[0], rtol=1e-5)
  assert float(loss.metrics['accuracy'].value()) == 1
  np.testing.assert_allclose(loss.metrics['logp_rejected'].value(), -3.5, rtol=1e-6)


@EACH
def test_a_soft_label_is_an_expectation(objective):
  sides = Compared(*(jnp.asarray(np.random.default_rng(i).uniform(-9, -1, (3, 2)), jnp.float32) for i in (0, 1)),
                   jnp.array([[5.0, 4.0]] * 3))
  def value(sides, label):
    return objective.loss_of(sides, jnp.full(3, label), jnp.ones(3), {}).objective.total
  one, two = value(sides, 1.0), value(sides.swapped(), 1.0)
  assert abs(float(one - two)) > 1e-3
  np.testing.assert_allclose(value(sides, 0.7), 0.7 * one + 0.3 * two, rtol=1e-5)
  if objective == DPO():
    conservative = DPO(smoothing=0.2).loss_of(sides, jnp.ones(3), jnp.ones(3), {})
    np.testing.assert_allclose(value(sides, 0.8), conservative.objective.total, rtol=1e-5)


@pytest.mark.parametrize('objective', [DPO(), ORPO()], ids=str)
def test_padding_parts_devices_and_rows_that_fill_up_change_nothing(objective):
  check_invariant(objective, MODEL, PARAMS)


def test_experts_add_the_penalties_of_each_pair_alone():
  model, params = made(small(layers=1, mlp=MoE(4, 2, Gated(24))))
  one, parts = (taken(SimPO(), model, params, batch(), parts) for parts in (1, 4))
  same(one, parts)
  found = jax.jit(lambda params, sides: pair_logps(model, params, sides))(params, batch())
  extra = {name: one[1].metrics[name] for name in found.aux}
  assert extra and all(float(mean.total) > 0 and float(mean.weight) == 8 for mean in extra.values())
  bare = SimPO().loss_of(Compared(found.logp_BP, 0 * found.logp_BP, found.tokens_BP), jnp.ones(8), jnp.ones(8), {})
  penalty = sum(mean.total for mean in extra.values())
  np.testing.assert_allclose(one[1].objective.total - bare.objective.total, penalty, rtol=1e-3)


def test_swapping_the_sides_turns_the_gradient_around():
  sides = referred()
  one, two = taken(DPO(), MODEL, PARAMS, sides)[0], taken(DPO(), MODEL, PARAMS, swapped(sides))[0]
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(one)) > 1e-2
  same(one, jax.tree.map(jnp.negative, two))


def test_without_a_reference_it_is_refused_or_needs_none():
  sides = {name: value for name, value in batch().items() if name != 'reference'}
  with pytest.raises(ConfigError, match=r'dpo\.no-reference'):
    DPO()(MODEL)(PARAMS, {}, sides, jax.random.key(0))
  loss_fn = jax.jit(lambda sides: SimPO()(MODEL)(PARAMS, {}, sides, jax.random.key(0)))
  same(loss_fn(sides), loss_fn(batch()))


def test_adapters_are_their_own_reference():
  check_own_reference(DPO(beta=1.0), MODEL, PARAMS, referred(), np.log(2))


def test_a_reference_gets_no_gradient():
  found = jax.grad(lambda values: reference_logps(MODEL, PARAMS, batch() | {'reference': values}).sum())(batch()['reference'])
  assert not found.any()


def planted(seed: int) -> dict:
  """Chosen answers are of even tokens, rejected ones of odd tokens."""
  sides = batch(seed=seed)
  parity = jnp.array([0, 1])[:, None]
  return sides | {'tokens': jnp.where(sides['mask'] > 0, sides['tokens'] // 2 * 2 + parity, sides['tokens'])}


@pytest.mark.parametrize('objective', [DPO(), IPO(), Hinge(), SimPO(), ORPO(weight=1.0)], ids=str)
def test_a_planted_preference_is_learnt(objective):
  """On pairs never seen, in two dozen steps."""
  tx = optax.adam(1e-2)
  state = born(lambda key: PARAMS, jax.random.key(0), tx)
  loss_fn = objective(MODEL)
  step = jax.jit(make_step(gradient(loss_fn), tx))
  held = referred(sides=planted(1000))
  score = jax.jit(lambda params: loss_fn(params, {}, held, jax.random.key(0)))
  before = score(PARAMS)
  for seed in range(24):
    state, _ = step(state, {}, referred(sides=planted(seed)))
  after = score(state.params)
  assert float(after.objective.value()) < 0.8 * float(before.objective.value())
  assert float(after.metrics['accuracy'].value()) == 1 > float(before.metrics['accuracy'].value())


def test_settings_out_of_range_are_refused():
  for make in (lambda: DPO(beta=0.0), lambda: DPO(smoothing=0.6), lambda: IPO(-1.0), lambda: Hinge(0.0), lambda: SimPO(0.0),
               lambda: ORPO(0.0)):
    with pytest.raises(ConfigError, match='out-of-range'):
      make()
