"""What is minimised when people, verifiers or models judge: functions of log-probs, values and rewards, arrays in and out.

Each gives one number a row (_B) or token (_BT) and averages nothing: how a batch becomes one number is a choice of its
own (`align.average`), and whatever looks across rows (baselines, whitening, KTO's reference point) is a column of the
batch by then (`align.advantages`). Log-probs of answers are sums over their tokens unless a name says mean. All of it is
computed in float32, and gradients are finite wherever the inputs are.

Letters: B rows, T positions of answers, V vocabulary.
"""

import chex
import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid

CERTAIN = 1e-6                        # nats: a mean log-prob nearer to 0 than this counts as this, for its odds are infinite


def bradley_terry(chosen_B: jax.Array, rejected_B: jax.Array, *, margin: jax.Array | float = 0.0,
                  label: jax.Array | float = 1.0) -> jax.Array:
  """-log p(chosen is preferred) of a reward model, nats, [B]. Bradley and Terry 1952; margin: Touvron et al. 2023.

  `label` is the probability that the chosen one is the better, where judges give soft ones.
  """
  chex.assert_equal_shape([chosen_B, rejected_B])
  return _binary(_f32(chosen_B) - _f32(rejected_B) - margin, label)


def centring(chosen_B: jax.Array, rejected_B: jax.Array) -> jax.Array:
  """The squared sum of both rewards, [B]: a penalty that keeps their mean near 0. Eisenstein et al. 2023."""
  chex.assert_equal_shape([chosen_B, rejected_B])
  return jnp.square(_f32(chosen_B) + _f32(rejected_B))


def process_reward(rewards_BT: jax.Array, labels_BT: jax.Array) -> jax.Array:
  """Cross-entropy of each step's reward with whether that step is right, nats, [B, T]. Lightman et al. 2023."""
  chex.assert_equal_shape([rewards_BT, labels_BT])
  return _binary(_f32(rewards_BT), labels_BT)


def dpo(chosen_B: jax.Array, rejected_B: jax.Array, ref_chosen_B: jax.Array, ref_rejected_B: jax.Array, *,
        beta: float, smoothing: jax.Array | float = 0.0) -> jax.Array:
  """-log sigmoid(beta * margin), nats, [B]. Rafailov et al. 2023, eq. 7; ln 2 where policy and reference agree.

  With `smoothing`, the share of labels that may be wrong, it is the conservative form (Mitchell 2023).
  """
  return _binary(beta * log_ratio_margin(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B), 1.0 - smoothing)


def ipo(mean_chosen_B: jax.Array, mean_rejected_B: jax.Array, mean_ref_chosen_B: jax.Array,
        mean_ref_rejected_B: jax.Array, *, beta: float) -> jax.Array:
  """(margin - 1 / (2 beta))^2, [B]. Azar et al. 2023, eq. 17, on log-probs per token, as its authors run it."""
  margin_B = log_ratio_margin(mean_chosen_B, mean_rejected_B, mean_ref_chosen_B, mean_ref_rejected_B)
  return jnp.square(margin_B - 0.5 / beta)


def hinge(chosen_B: jax.Array, rejected_B: jax.Array, ref_chosen_B: jax.Array, ref_rejected_B: jax.Array, *,
          beta: float) -> jax.Array:
  """max(0, 1 - beta * margin), [B]. Zhao et al. 2023 (SLiC), normalised by the reference as in Liu et al. 2023."""
  return jax.nn.relu(1.0 - beta * log_ratio_margin(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B))


def log_ratio_margin(chosen_B: jax.Array, rejected_B: jax.Array, ref_chosen_B: jax.Array,
                     ref_rejected_B: jax.Array) -> jax.Array:
  """By how much more than the reference the policy prefers the chosen answer, nats, [B]."""
  chex.assert_equal_shape([chosen_B, rejected_B, ref_chosen_B, ref_rejected_B])
  return (_f32(chosen_B) - _f32(ref_chosen_B)) - (_f32(rejected_B) - _f32(ref_rejected_B))


def kto(logp_B: jax.Array, ref_B: jax.Array, desirable_B: jax.Array, reference_B: jax.Array, *, beta: float,
        desirable: float = 1.0, undesirable: float = 1.0) -> jax.Array:
  """What an answer with a thumb up or down falls short of, from 0 to its weight, [B]. Ethayarajh et al. 2024, eq. 8.

  `reference_B` is the KL of policy and reference, the same for all rows (`align.advantages.kto_reference`).
  """
  chex.assert_equal_shape([logp_B, ref_B, desirable_B, reference_B])
  gain_B = beta * (_f32(logp_B) - _f32(ref_B) - jax.lax.stop_gradient(_f32(reference_B)))
  return jnp.where(desirable_B, desirable * jax.nn.sigmoid(-gain_B), undesirable * jax.nn.sigmoid(gain_B))


def orpo_odds(mean_chosen_B: jax.Array, mean_rejected_B: jax.Array) -> jax.Array:
  """-log sigmoid(log odds ratio) of log-probs per token, nats, [B]. Hong et al. 2024, eq. 7.

  To be added, times a weight, to the negative log-likelihood of the chosen answer.
  """
  chex.assert_equal_shape([mean_chosen_B, mean_rejected_B])
  return -log_sigmoid(log_odds(mean_chosen_B) - log_odds(mean_rejected_B))


def log_odds(logp: jax.Array) -> jax.Array:
  """log(p / (1 - p)), any shape, finite up to p = 1."""
  logp = jnp.minimum(_f32(logp), -CERTAIN)
  return logp - jnp.log(-jnp.expm1(logp))


def simpo(mean_chosen_B: jax.Array, mean_rejected_B: jax.Array, *, beta: float, gamma: float) -> jax.Array:
  """-log sigmoid(beta * margin - gamma) of log-probs per token, nats, [B]. Meng et al. 2024, eq. 6."""
  chex.assert_equal_shape([mean_chosen_B, mean_rejected_B])
  return -log_sigmoid(beta * (_f32(mean_chosen_B) - _f32(mean_rejected_B)) - gamma)


def policy(logp_BT: jax.Array, old_BT: jax.Array, advantage_BT: jax.Array, *, low: float = 0.2, high: float = 0.2,
           cap: float | None = None) -> jax.Array:
  """max(-A r, -A clip(r, 1 - low, 1 + high)) with r = p / p_old, [B, T]. Schulman et al. 2017, eq. 7.

  `high` above `low` is clip-higher (DAPO, Yu et al. 2025). `cap` bounds r where A < 0 (dual clip, Ye et al. 2020, eq. 5),
  where the loss would else have no bound.
  """
  chex.assert_equal_shape([logp_BT, old_BT, advantage_BT])
  ratio_BT = ratio(logp_BT, old_BT)
  advantage_BT = jax.lax.stop_gradient(_f32(advantage_BT))
  loss_BT = jnp.maximum(-advantage_BT * ratio_BT, -advantage_BT * jnp.clip(ratio_BT, 1.0 - low, 1.0 + high))
  return loss_BT if cap is None else jnp.where(advantage_BT < 0, jnp.minimum(loss_BT, -advantage_BT * cap), loss_BT)


def ratio(logp: jax.Array, old: jax.Array) -> jax.Array:
  """p / p_old, any shape. The exponent is held within 20 nats: beyond, only clipping matters."""
  return jnp.exp(jnp.clip(_f32(logp) - jax.lax.stop_gradient(_f32(old)), -20.0, 20.0))


def sequence_logp(logp_BT: jax.Array, old_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """The old log-prob plus the row's mean log-ratio, [B, T]: in `policy` it makes GSPO of it. Zheng et al. 2025, eq. 14.

  All tokens of an answer then share one ratio, (p / p_old)^(1 / length), whose gradient reaches each of them equally.
  """
  chex.assert_equal_shape([logp_BT, old_BT, mask_BT])
  old_BT = jax.lax.stop_gradient(_f32(old_BT))
  gap_BT = jnp.where(mask_BT > 0, _f32(logp_BT) - old_BT, 0.0)
  mean_B1 = gap_BT.sum(1, keepdims=True) / jnp.maximum(mask_BT.sum(1, keepdims=True), 1.0)
  return old_BT + mean_B1


def value(values_BT: jax.Array, old_BT: jax.Array, returns_BT: jax.Array, *, clip: float | None = 0.2) -> jax.Array:
  """Half the squared error of a critic, the larger of plain and clipped around the old value, [B, T].

  Schulman et al. 2017's baselines code; `clip=None`: the plain one.
  """
  chex.assert_equal_shape([values_BT, old_BT, returns_BT])
  values_BT, old_BT, returns_BT = _f32(values_BT), *map(jax.lax.stop_gradient, (_f32(old_BT), _f32(returns_BT)))
  plain_BT = jnp.square(values_BT - returns_BT)
  if clip is None:
    return 0.5 * plain_BT
  held_BT = old_BT + jnp.clip(values_BT - old_BT, -clip, clip)
  return 0.5 * jnp.maximum(plain_BT, jnp.square(held_BT - returns_BT))


def entropy(logits: jax.Array) -> jax.Array:
  """Of softmax over the last axis, nats, [...] of [..., V]. Ids at negative infinity add nothing."""
  logp = jax.nn.log_softmax(_f32(logits), -1)
  return -jnp.sum(jnp.where(logp > -jnp.inf, jnp.exp(logp) * jnp.where(logp > -jnp.inf, logp, 0.0), 0.0), -1)


def _binary(score: jax.Array, label: jax.Array | float) -> jax.Array:
  """Cross-entropy of sigmoid(score) with a label from 0 to 1, by log-sigmoids that do not overflow."""
  return -(label * log_sigmoid(score) + (1.0 - label) * log_sigmoid(-score))


def _f32(x: jax.Array) -> jax.Array:
  return jnp.asarray(x, jnp.float32)
