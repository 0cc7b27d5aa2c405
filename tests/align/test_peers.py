"""Our losses beside those of TRL and rlax: the same arrays, the same numbers and gradients to 1e-5.

They run in environments of their own (`make peers`), and are skipped by name where these are absent. Where ours differs on
purpose, a test says how, and would fail if it no longer did.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from align import kl, losses
from align.advantages import gae, grouped, kto_reference, leave_one_out, token_rewards, whiten
from align.average import PerAnswer, PerConstant, PerToken
from align.dpo import DPO, IPO, ORPO, Compared, Hinge, SimPO
from tests.peers import of

B, T = 8, 7
TOLERANCE = dict(rtol=1e-5, atol=1e-6)


def arrays() -> dict[str, np.ndarray]:
  """Log-probs of answers of different lengths, their reference, their rewards and values."""
  rng = np.random.default_rng(0)
  lengths = np.array([7, 3, 1, 5, 6, 2, 4, 7])
  logp_BT = -rng.gamma(2.0, 0.7, (B, T))
  drawn = dict(logp_BT=logp_BT, old_BT=logp_BT + rng.normal(0, 0.7, (B, T)), ref_BT=logp_BT + rng.normal(0, 0.3, (B, T)),
               mask_BT=np.arange(T) < lengths[:, None], advantage_B=rng.normal(size=B), mismatched_B=rng.normal(1.4, 1, B),
               rewards_BP=rng.normal(size=(B, 2)) * 2, margin_B=rng.uniform(0, 1, B), mean_BP=-rng.gamma(2.0, 0.5, (B, 2)),
               rewards_BT=rng.normal(size=(B, T)), values_BT=rng.normal(size=(B, T)), fresh_BT=rng.normal(size=(B, T)),
               returns_BT=rng.normal(size=(B, T)), logits=rng.normal(size=(4, 5, 9)) * 3)
  return {name: each.astype(np.float32) for name, each in drawn.items()} | {'desirable_B': np.arange(B) % 3 != 0}


GIVEN = arrays()
G = {name: jnp.asarray(each) for name, each in GIVEN.items()}
MASK, ADVANTAGE = G['mask_BT'], G['advantage_B'][:, None] * jnp.ones((B, T))


@pytest.fixture(scope='module')
def trl(tmp_path_factory):
  return of.told('trl', 'trl_losses.py', tmp_path_factory.mktemp('trl'), **GIVEN)


@pytest.fixture(scope='module')
def ppo(tmp_path_factory):
  return of.told('ppo', 'trl_ppo.py', tmp_path_factory.mktemp('ppo'), **GIVEN)


@pytest.fixture(scope='module')
def rlax(tmp_path_factory):
  return of.told('trl', 'rlax_losses.py', tmp_path_factory.mktemp('rlax'), **GIVEN)


def agrees(form, x, value, grad) -> None:
  """Whether our mean and its gradient are the peer's."""
  ours, slope = jax.value_and_grad(form)(x)
  np.testing.assert_allclose(ours, value, **TOLERANCE)
  np.testing.assert_allclose(slope, grad, **TOLERANCE)


def compared(logp_BT) -> Compared:
  """Our pairs of TRL's batch: its first half are the chosen sides."""
  sums_B, refs_B, tokens_B = ((each * MASK).sum(1) for each in (logp_BT, G['ref_BT'], jnp.ones((B, T))))
  return Compared(*(each.reshape(2, -1).T for each in (sums_B, refs_B, tokens_B)))


class TestPreferences:

  @pytest.mark.parametrize('name, objective', [('sigmoid', DPO(beta=0.3)), ('hinge', Hinge(beta=0.3)), ('ipo', IPO(beta=0.3))])
  def test_dpo_and_its_kin(self, trl, name, objective):
    """IPO is on means over tokens in both; on sums, as OpenRLHF has it, it would be another number."""
    agrees(lambda x: objective.loss(compared(x)).mean(), G['logp_BT'], trl[f'dpo_{name}'], trl[f'dpo_{name}_grad'])
    if name == 'ipo':
      assert abs(losses.ipo(*compared(G['logp_BT']).columns(), beta=0.3).mean() - trl['dpo_ipo']) > 0.1

  def test_labels_that_may_be_wrong(self, trl):
    """TRL's DPO has no conservative form any more, its CPO has: DPO with a reference of 0."""
    nothing = jnp.zeros(B)
    ours = losses.dpo(*G['mean_BP'].T, nothing, nothing, beta=2.0, smoothing=0.1)
    np.testing.assert_allclose(ours, trl['conservative'], **TOLERANCE)

  def test_simpo(self, trl):
    """gamma is a margin of rewards in both: TRL divides it by beta and multiplies it again."""
    sides = Compared(G['mean_BP'], jnp.zeros((B, 2)), jnp.ones((B, 2)))
    np.testing.assert_allclose(SimPO(beta=2.0, gamma=0.5).loss(sides), trl['simpo'], **TOLERANCE)

  def test_orpo(self, trl):
    """TRL's sign is the other way around: it subtracts the term."""
    sides = Compared(G['mean_BP'], jnp.zeros((B, 2)), jnp.ones((B, 2)))
    np.testing.assert_allclose(ORPO(weight=2.0).loss(sides) + G['mean_BP'][:, 0], -trl['orpo'], **TOLERANCE)

  def test_kto(self, trl):
    reference_B = jnp.full(B, kto_reference(G['mismatched_B']))
    assert reference_B[0] > 0

    def form(x):
      return losses.kto((x * MASK).sum(1), (G['ref_BT'] * MASK).sum(1), G['desirable_B'], reference_B, beta=0.3, desirable=1.5,
                        undesirable=0.7).mean()

    agrees(form, G['logp_BT'], trl['kto'], trl['kto_grad'])

  def test_reward_model(self, trl):
    agrees(lambda x: losses.bradley_terry(*x.T).mean(), G['rewards_BP'], trl['reward'], trl['reward_grad'])
    agrees(lambda x: (losses.bradley_terry(*x.T, margin=G['margin_B']) + 0.01 * losses.centring(*x.T)).mean(),
           G['rewards_BP'], trl['reward_margin'], trl['reward_margin_grad'])


def clipped(x, average, old=None, beta=0.0, **bounds):
  """Our GRPO: the clipped ratio, k3 to the reference where it weighs, and whose mean it is."""
  loss_BT = losses.clipped_surrogate(x, G['old_BT'] if old is None else old, ADVANTAGE, **bounds)
  return average(loss_BT + beta * kl.k3(x, G['ref_BT']), MASK).value()


class TestPolicies:

  def test_what_is_compared_is_clipped_at_every_bound(self):
    ratio_BT = np.where(MASK, losses.ratio(G['logp_BT'], G['old_BT']), 1.0)
    for sign in (-1, 1):
      assert ((ratio_BT < 0.8) & (sign * ADVANTAGE > 0)).any() and ((ratio_BT > 1.28) & (sign * ADVANTAGE > 0)).any()
    assert ((ratio_BT > 3.0) & (ADVANTAGE < 0)).any()

  @pytest.mark.parametrize('name, average, settings', [
    ('grpo', PerAnswer(), {}), ('bnpo', PerToken(), {}), ('dapo', PerToken(), {'high': 0.28}), ('dr_grpo', PerConstant(T), {}),
    ('grpo_kl', PerAnswer(), {'beta': 0.4}), ('dapo_cap', PerToken(), {'cap': 3.0})])
  def test_grpo_and_its_kin(self, trl, name, average, settings):
    """Dr. GRPO's constant is TRL's max_completion_length; our cap is its delta, which here lies above the clip."""
    agrees(lambda x: clipped(x, average, **settings), G['logp_BT'], trl[name], trl[f'{name}_grad'])

  def test_gspo(self, trl):
    def form(x):
      return clipped(losses.sequence_logp(x, G['old_BT'], MASK), PerAnswer(), low=0.1, high=0.1)
    agrees(form, G['logp_BT'], trl['gspo'], trl['gspo_grad'])

  def test_rloo_has_one_ratio_for_an_answer(self, trl):
    """Of the whole answer, not its root: ours is the policy's loss on sums."""
    old_B1 = (G['old_BT'] * MASK).sum(1, keepdims=True)

    def form(x):
      return losses.clipped_surrogate((x * MASK).sum(1, keepdims=True), old_B1, G['advantage_B'][:, None]).mean()

    agrees(form, G['logp_BT'], trl['rloo'], trl['rloo_grad'])

  def test_advantages_of_groups(self, trl):
    """From real trainers, which shuffle: sample deviation and 1e-4, as ours by default; ours by G is 15% larger here."""
    rewards_B = G['advantage_B']
    for name, ours in (('group', grouped(rewards_B, 4)), ('none', grouped(rewards_B, 4, deviation='none')),
                       ('rloo', leave_one_out(rewards_B, 4))):
      np.testing.assert_allclose(np.sort(ours), trl[f'advantages_{name}'], rtol=1e-5, atol=1e-5)
    by_all = np.sort(grouped(rewards_B, 4, deviation='population'))
    np.testing.assert_allclose(by_all / trl['advantages_group'], 2 / 3 ** 0.5, rtol=1e-3)

  def test_entropy(self, trl, rlax):
    np.testing.assert_allclose(losses.entropy(G['logits']), trl['entropy'], **TOLERANCE)
    np.testing.assert_allclose(losses.entropy(G['logits']).reshape(-1), rlax['entropy'], **TOLERANCE)


class TestPPO:

  def test_rewards_of_tokens(self, ppo):
    """TRL puts the penalty on padding too, where its mask leaves it out later; ours is 0 there."""
    ours = token_rewards(G['advantage_B'], kl.k1(G['logp_BT'], G['ref_BT']), MASK, beta=0.2)
    np.testing.assert_allclose(ours, np.where(MASK, ppo['rewards'], 0), **TOLERANCE)

  def test_advantages_and_returns(self, ppo):
    """Whitened by n - 1 as in TRL. TRL adds 1e-8 to the variance, ours to the deviation, which is nothing here."""
    found = gae(G['rewards_BT'], G['values_BT'], MASK, gamma=0.9, decay=0.8)
    np.testing.assert_allclose(found.returns_BT, np.where(MASK, ppo['returns'], 0), **TOLERANCE)
    white = whiten(found.advantages_BT, MASK, deviation='sample')
    np.testing.assert_allclose(white, np.where(MASK, ppo['whitened'], 0), rtol=1e-5, atol=1e-5)
    scaled = whiten(G['rewards_BT'], MASK, deviation='sample', shift=False)
    np.testing.assert_allclose(scaled, np.where(MASK, ppo['scaled'], 0), rtol=1e-5, atol=1e-5)

  def test_a_single_token_is_no_number_in_trl_and_nothing_here(self, ppo):
    assert not np.isfinite(ppo['alone']).any()
    assert whiten(G['rewards_BT'][:1, :1], MASK[:1, :1], deviation='sample') == 0

  def test_policy_and_value(self, ppo):
    """TRL's mean is over tokens, and its value loss is half the square, as ours."""
    agrees(lambda x: clipped(x, PerToken()), G['logp_BT'], ppo['policy'], ppo['policy_grad'])
    agrees(lambda x: PerToken()(losses.value(x, G['values_BT'], G['returns_BT'], clip=0.3), MASK).value(), G['fresh_BT'],
           ppo['value'], ppo['value_grad'])

  def test_the_weight_of_the_kl_adapts_alike(self, ppo):
    beta, control = 0.2, kl.Adaptive()
    for at, wanted in zip((9.0, 3.0, 6.3, 60.0), ppo['betas']):
      beta = control.next(beta, at, 256)
      np.testing.assert_allclose(beta, wanted, rtol=1e-12)

  def test_rlax(self, rlax):
    """rlax takes one sequence without a mask, and the value after its end as an argument: 0, as in ours."""
    whole = jnp.ones((B, T))
    ours = gae(G['rewards_BT'], G['values_BT'], whole, gamma=0.9, decay=0.8)
    np.testing.assert_allclose(ours.advantages_BT, rlax['gae'], **TOLERANCE)
    surrogate_B, grad = jax.vjp(lambda x: losses.clipped_surrogate(x, G['old_BT'], ADVANTAGE).mean(1), G['logp_BT'])
    np.testing.assert_allclose(surrogate_B, rlax['surrogate'], **TOLERANCE)
    np.testing.assert_allclose(grad(jnp.ones(B))[0], rlax['surrogate_grad'], **TOLERANCE)
