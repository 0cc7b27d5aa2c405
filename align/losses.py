"""The losses of alignment as pure functions of arrays: DPO and its family, KTO, PPO and GRPO, reward models.

Each gives one float32 number per row (_B) or per token (_BT) and averages nothing: how a batch becomes one number is a choice
of its own (`align.average`), and whatever looks across rows (baselines, whitening, KTO's reference point) is a column of the
batch by then (`align.advantages`). Log-probs of answers are sums over their tokens, in nats, unless a name says mean. Gradients
are finite wherever the inputs are. Arrays that should be of one shape and are not raise AssertionError: nothing is broadcast.

Letters: B rows, T positions of answers, V vocabulary.
"""

import chex
import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid

CERTAIN = 1e-6                        # nats: a mean log-prob nearer to 0 than this counts as this, for its odds are infinite


def bradley_terry(chosen_B: jax.Array, rejected_B: jax.Array, *, margin: jax.Array | float = 0.0,
                  label: jax.Array | float = 1.0) -> jax.Array:
  """-log sigmoid(r_chosen - r_rejected - margin), nats, f32[B]: a reward model's loss.

  Bradley and Terry 1952; margin: Touvron et al. 2023. A soft `label` is the probability that the chosen one is the better; the
  loss then is the cross-entropy with it.
  """
  chex.assert_equal_shape([chosen_B, rejected_B])
  return _binary(_f32(chosen_B) - _f32(rejected_B) - margin, label)


def centring(chosen_B: jax.Array, rejected_B: jax.Array) -> jax.Array:
  """(r_chosen + r_rejected)^2, f32[B]: a penalty that keeps the mean reward near 0. Eisenstein et al. 2023."""
  chex.assert_equal_shape([chosen_B, rejected_B])
  return jnp.square(_f32(chosen_B) + _f32(rejected_B))


def process_reward(rewards_BT: jax.Array, labels_BT: jax.Array) -> jax.Array:
  """Cross-entropy of sigmoid(reward) with each step being right (1) or wrong (0), nats, f32[B, T]. Lightman et al. 2023."""
  chex.assert_equal_shape([rewards_BT, labels_BT])
  return _binary(_f32(rewards_BT), labels_BT)


def dpo(chosen_B: jax.Array, rejected_B: jax.Array, ref_chosen_B: jax.Array, ref_rejected_B: jax.Array, *,
        beta: float, smoothing: jax.Array | float = 0.0) -> jax.Array:
  """-log sigmoid(beta * `log_ratio_margin`), nats, f32[B]; ln 2 where policy and reference agree. Rafailov et al. 2023, eq. 7.

  `smoothing` is the share of labels that may be wrong: the conservative form (Mitchell 2023).
  """
  return _binary(beta * log_ratio_margin(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B), 1.0 - smoothing)


def ipo(mean_chosen_B: jax.Array, mean_rejected_B: jax.Array, mean_ref_chosen_B: jax.Array,
        mean_ref_rejected_B: jax.Array, *, beta: float) -> jax.Array:
  """(margin - 1 / (2 beta))^2, f32[B], with `log_ratio_margin` of log-probs per token. Azar et al. 2023, eq. 17."""
  margin_B = log_ratio_margin(mean_chosen_B, mean_rejected_B, mean_ref_chosen_B, mean_ref_rejected_B)
  return jnp.square(margin_B - 0.5 / beta)


def hinge(chosen_B: jax.Array, rejected_B: jax.Array, ref_chosen_B: jax.Array, ref_rejected_B: jax.Array, *,
          beta: float) -> jax.Array:
  """max(0, 1 - beta * `log_ratio_margin`), f32[B]. Zhao et al. 2023 (SLiC), against the reference as in Liu et al. 2023."""
  return jax.nn.relu(1.0 - beta * log_ratio_margin(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B))


def log_ratio_margin(chosen_B: jax.Array, rejected_B: jax.Array, ref_chosen_B: jax.Array,
                     ref_rejected_B: jax.Array) -> jax.Array:
  """log p/p_ref of the chosen answer less log p/p_ref of the rejected one, nats, f32[B]."""
  chex.assert_equal_shape([chosen_B, rejected_B, ref_chosen_B, ref_rejected_B])
  return (_f32(chosen_B) - _f32(ref_chosen_B)) - (_f32(rejected_B) - _f32(ref_rejected_B))


def kto(logp_B: jax.Array, ref_B: jax.Array, desirable_B: jax.Array, reference_B: jax.Array, *, beta: float,
        desirable: float = 1.0, undesirable: float = 1.0) -> jax.Array:
  """weight * sigmoid(-s beta (log p/p_ref - reference)), f32[B]; s = 1 if desirable, else -1. Ethayarajh et al. 2024, eq. 8.

  From 0 to the answer's weight, `desirable` or `undesirable`. `reference_B` is the reference point, the same in all rows
  (`align.advantages.kto_reference`); it gets no gradient.
  """
  chex.assert_equal_shape([logp_B, ref_B, desirable_B, reference_B])
  gain_B = beta * (_f32(logp_B) - _f32(ref_B) - jax.lax.stop_gradient(_f32(reference_B)))
  return jnp.where(desirable_B, desirable * jax.nn.sigmoid(-gain_B), undesirable * jax.nn.sigmoid(gain_B))


def orpo_odds(mean_chosen_B: jax.Array, mean_rejected_B: jax.Array) -> jax.Array:
  """-log sigmoid(log odds of chosen - log odds of rejected), from log-probs per token, nats, f32[B]. Hong et al. 2024, eq. 7.

  To be added, times a weight, to the negative log-likelihood of the chosen answer.
  """
  chex.assert_equal_shape([mean_chosen_B, mean_rejected_B])
  return -log_sigmoid(log_odds(mean_chosen_B) - log_odds(mean_rejected_B))


def log_odds(logp: jax.Array) -> jax.Array:
  """log(p / (1 - p)), f32 of any shape, from log p; finite up to p = 1."""
  logp = jnp.minimum(_f32(logp), -CERTAIN)
  return logp - jnp.log(-jnp.expm1(logp))


def simpo(mean_chosen_B: jax.Array, mean_rejected_B: jax.Array, *, beta: float, gamma: float) -> jax.Array:
  """-log sigmoid(beta * (chosen - rejected) - gamma), from log-probs per token, nats, f32[B]. Meng et al. 2024, eq. 6."""
  chex.assert_equal_shape([mean_chosen_B, mean_rejected_B])
  return -log_sigmoid(beta * (_f32(mean_chosen_B) - _f32(mean_rejected_B)) - gamma)


def clipped_surrogate(logp_BT: jax.Array, old_BT: jax.Array, advantage_BT: jax.Array, *, low: float = 0.2, high: float = 0.2,
                      cap: float | None = None) -> jax.Array:
  """max(-A r, -A clip(r, 1 - low, 1 + high)) with r = p / p_old, f32[B, T]: PPO's and GRPO's. Schulman et al. 2017, eq. 7.

  `high` above `low` is clip-higher (DAPO, Yu et al. 2025). `cap` bounds r where A < 0 (dual clip, Ye et al. 2020, eq. 5),
  where the loss would else have no bound. No gradient reaches `old_BT` and `advantage_BT`.
  """
  chex.assert_equal_shape([logp_BT, old_BT, advantage_BT])
  ratio_BT = ratio(logp_BT, old_BT)
  advantage_BT = jax.lax.stop_gradient(_f32(advantage_BT))
  loss_BT = jnp.maximum(-advantage_BT * ratio_BT, -advantage_BT * jnp.clip(ratio_BT, 1.0 - low, 1.0 + high))
  return loss_BT if cap is None else jnp.where(advantage_BT < 0, jnp.minimum(loss_BT, -advantage_BT * cap), loss_BT)


def ratio(logp: jax.Array, old: jax.Array) -> jax.Array:
  """p / p_old, f32 of any shape, from log-probs. They are taken to differ by 20 nats at most: beyond, only clipping matters."""
  return jnp.exp(jnp.clip(_f32(logp) - jax.lax.stop_gradient(_f32(old)), -20.0, 20.0))


def sequence_logp(logp_BT: jax.Array, old_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """log p_old of each token plus the answer's mean log-ratio, f32[B, T]. Zheng et al. 2025, eq. 14.

  Given to `clipped_surrogate` for log p it makes GSPO of it: all tokens of an answer share one ratio, (p / p_old)^(1 / length),
  whose gradient reaches each of them equally. `mask_BT` is 1 on the answer's tokens.
  """
  chex.assert_equal_shape([logp_BT, old_BT, mask_BT])
  old_BT = jax.lax.stop_gradient(_f32(old_BT))
  gap_BT = jnp.where(mask_BT > 0, _f32(logp_BT) - old_BT, 0.0)
  mean_B1 = gap_BT.sum(1, keepdims=True) / jnp.maximum(mask_BT.sum(1, keepdims=True), 1.0)
  return old_BT + mean_B1


def value(values_BT: jax.Array, old_BT: jax.Array, returns_BT: jax.Array, *, clip: float | None = 0.2) -> jax.Array:
  """Half the squared error of a critic, f32[B, T], or that of its value clipped around the old one, if larger.

  As in the baselines code of Schulman et al. 2017. `clip=None` takes the plain one. No gradient reaches old values and returns.
  """
  chex.assert_equal_shape([values_BT, old_BT, returns_BT])
  values_BT, old_BT, returns_BT = _f32(values_BT), *map(jax.lax.stop_gradient, (_f32(old_BT), _f32(returns_BT)))
  plain_BT = jnp.square(values_BT - returns_BT)
  if clip is None:
    return 0.5 * plain_BT
  held_BT = old_BT + jnp.clip(values_BT - old_BT, -clip, clip)
  return 0.5 * jnp.maximum(plain_BT, jnp.square(held_BT - returns_BT))


def entropy(logits: jax.Array) -> jax.Array:
  """The entropy of softmax(logits) over the last axis, nats, f32[...] of [..., V]. Ids at negative infinity add nothing."""
  logp = jax.nn.log_softmax(_f32(logits), -1)
  return -jnp.sum(jnp.where(logp > -jnp.inf, jnp.exp(logp) * jnp.where(logp > -jnp.inf, logp, 0.0), 0.0), -1)


def _binary(score: jax.Array, label: jax.Array | float) -> jax.Array:
  """Cross-entropy of sigmoid(score) with a label from 0 to 1, by log-sigmoids that do not overflow."""
  return -(label * log_sigmoid(score) + (1.0 - label) * log_sigmoid(-score))


def _f32(x: jax.Array) -> jax.Array:
  return jnp.asarray(x, jnp.float32)
