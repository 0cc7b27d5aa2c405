"""The distillation loss: divergences of a student's next-token distribution from its teacher's, without [B, L, V] in memory.

It is computed tile by tile (some positions of every row), as in `kernels.head`. The loss is linear in its weights, so the
gradients of the student's hidden states and head are computed in the forward pass, from the same logits, and the backward pass
only multiplies by one factor. The teacher gets no gradient. Tiles in which all weights are 0 are skipped. The divergences are
those of Agarwal et al. 2023 (GKD), with p the teacher, q the student, m = beta p + (1 - beta) q:

    beta = 0    KL(p || q), forward         beta = 1    KL(q || p), reverse
    else        beta KL(p || m) + (1 - beta) KL(q || m): at 1/2 the Jensen-Shannon divergence

At temperature T both are softmax(logits / T), and the divergence is multiplied by T^2, so that its gradient keeps its scale
(Hinton et al. 2015). The teacher is a model (`taught`), or stored log-probs of one (`taught_by_stored`).

Letters: B rows, L positions, D width of the student, E of the teacher, V vocabulary, K stored ids, J = K + 1 or K outcomes.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels.tiles import operand_dtype, pull, scan, sums, total, weighted

MODELS = 2         # a tile holds the logits of both
NONE = -1e30       # the logit of an excluded id: finite, so that its probability 0 times its log-prob is 0 and not NaN


class Side(NamedTuple):
  """The hidden states and head of a model: logits are cap(x w), operands cast to `dtype` (None: no cast).

  `groups`, of a student, is the number of devices over which batch rows are sharded, as in `kernels.head.weighted_nll`.
  """

  x_BLD: jax.Array
  w_DV: jax.Array
  softcap: float | None = None
  dtype: jnp.dtype | type | None = None
  groups: int = 1


class TaughtSums(NamedTuple):
  """Sums over all positions of weight times a quantity, f32[] each."""

  loss: jax.Array                     # (1 - hard) * divergence + hard * nll
  divergence: jax.Array               # T^2 D(teacher, student), nats
  nll: jax.Array                      # - log p(target) of the student at temperature 1, nats
  correct: jax.Array                  # 1 where the student's logit of the target is above all others
  agree: jax.Array                    # 1 where student and teacher have the same most likely token


@dataclass(frozen=True)
class Lesson:
  """The static arguments of a call."""

  beta: float
  temperature: float
  hard: float
  softcap: float | None
  dtype: jnp.dtype
  groups: int
  teacher_softcap: float | None = None
  teacher_dtype: jnp.dtype | None = None


def taught(student: Side, teacher: Side, targets_BL: jax.Array, weights_BL: jax.Array, *, beta: float = 0.0,
           temperature: float = 1.0, hard: float = 0.0) -> TaughtSums:
  """The weighted sums, with a teacher model: of any width, with the student's vocabulary.

  Only `loss` may be differentiated: its gradient is computed in the forward pass, and gradients of other sums are NaN.
  Positions of weight 0 are ignored, whatever they hold. Sums and the gradient of w are accumulated in float32.

  Raises: ValueError for shapes that do not fit.
  """
  x_BLD, w_DV, softcap, dtype, groups = student
  x_BLE, w_EV, teacher_softcap, teacher_dtype, _ = teacher
  _check(x_BLD, w_DV, targets_BL, weights_BL, x_BLE)
  if x_BLE.shape[2] != w_EV.shape[0] or w_EV.shape[1] != w_DV.shape[1]:
    raise ValueError(f'a teacher of x{x_BLE.shape}, w{w_EV.shape} does not teach a head of w{w_DV.shape}')
  lesson = Lesson(beta, temperature, hard, softcap, operand_dtype(x_BLD, w_DV, dtype), groups, teacher_softcap,
                  operand_dtype(x_BLE, w_EV, teacher_dtype))
  return _sums(x_BLD, w_DV, (x_BLE,), w_EV, targets_BL, weights_BL.astype(jnp.float32), lesson)


def taught_by_stored(student: Side, ids_BLK: jax.Array, logps_BLJ: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array, *,
                     beta: float = 0.0, temperature: float = 1.0, hard: float = 0.0) -> TaughtSums:
  """The weighted sums, with stored log-probs of a teacher's K most likely ids, at this temperature, the most likely first.

  With J = K + 1 the last number is the log of the total probability of all other ids, which count as one more outcome for both
  models. With J = K both are renormalised over the K ids, and all other ids are ignored. The rest is as in `taught`.

  Raises: ValueError for shapes that do not fit.
  """
  x_BLD, w_DV, softcap, dtype, groups = student
  _check(x_BLD, w_DV, targets_BL, weights_BL, ids_BLK)
  if logps_BLJ.shape[2] - ids_BLK.shape[2] not in (0, 1) or ids_BLK.shape[2] > w_DV.shape[1]:
    raise ValueError(f'ids{ids_BLK.shape} with logps{logps_BLJ.shape} of a head w{w_DV.shape}')
  lesson = Lesson(beta, temperature, hard, softcap, operand_dtype(x_BLD, w_DV, dtype), groups)
  return _sums(x_BLD, w_DV, (ids_BLK, logps_BLJ), None, targets_BL, weights_BL.astype(jnp.float32), lesson)


def between(logp: jax.Array, logq: jax.Array, beta: float) -> jax.Array:
  """The divergence of log-probs q from log-probs p over the last axis, nats; the mixture m is computed in log space."""
  if beta == 0.0:
    return (jnp.exp(logp) * (logp - logq)).sum(-1)
  if beta == 1.0:
    return (jnp.exp(logq) * (logq - logp)).sum(-1)
  logm = jnp.logaddexp(jnp.log(beta) + logp, jnp.log1p(-beta) + logq)
  return beta * (jnp.exp(logp) * (logp - logm)).sum(-1) + (1 - beta) * (jnp.exp(logq) * (logq - logm)).sum(-1)


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _sums(x_BLD, w_DV, known, teacher_w, targets_BL, weights_BL, lesson):
  def tile(carry, part):
    x, known, targets, weights = part
    _, each = _judged(_raw(x, w_DV, lesson.dtype), known, teacher_w, targets, weights, lesson)
    return carry, each

  part = weighted(weights_BL, (x_BLD, known, targets_BL, weights_BL))
  return _added(scan(tile, None, part, w_DV.shape[1], MODELS, weights_BL != 0)[1], weights_BL)


def _forward(x_BLD, w_DV, known, teacher_w, targets_BL, weights_BL, lesson):
  w = w_DV.astype(lesson.dtype)

  def tile(so_far, part):
    x, known, targets, weights = part
    judged = jax.grad(_judged, has_aux=True)
    draw, each = judged(_raw(x, w, lesson.dtype), known, teacher_w, targets, weights, lesson)
    dx, dw = pull(x, w, draw, lesson.dtype, lesson.groups)
    return so_far + dw, (each, dx.astype(x_BLD.dtype))

  part = weighted(weights_BL, (x_BLD, known, targets_BL, weights_BL))
  dw, (each, dx_BLD) = scan(tile, sums(w, lesson.groups), part, w.shape[1], MODELS, weights_BL != 0)
  return _added(each, weights_BL), (dx_BLD, total(dw, lesson.groups).astype(w_DV.dtype), each)


def _backward(lesson, saved, g):
  dx_BLD, dw_DV, each = saved
  factor = jnp.where(sum(jnp.abs(other) for other in g[1:]) == 0, g.loss, jnp.nan)
  dweights_BL = sum(a * b for a, b in zip(g, each))
  return (factor * dx_BLD).astype(dx_BLD.dtype), (factor * dw_DV).astype(dw_DV.dtype), None, None, None, dweights_BL


_sums.defvjp(_forward, _backward)


def _judged(raw, known, teacher_w, targets, weights, lesson):
  """The weighted loss of a tile as a function of the student's x w, and the terms of `TaughtSums`: 0 where the weight is 0."""
  logits = _capped(raw, lesson.softcap)
  logp, logq, likeliest = _outcomes(logits / lesson.temperature, known, teacher_w, lesson)
  divergence = lesson.temperature ** 2 * between(logp, logq, lesson.beta)
  picked = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
  nll = jax.nn.logsumexp(logits, -1) - picked
  loss = divergence if lesson.hard == 0.0 else (1 - lesson.hard) * divergence + lesson.hard * nll
  other = jnp.max(jnp.where(jnp.arange(logits.shape[-1]) == targets[..., None], NONE, logits), -1)
  each = TaughtSums(loss, divergence, nll, picked > other, logits.argmax(-1) == likeliest)
  return (weights * loss).sum(), TaughtSums(*(jnp.where(weights != 0, value, 0.0) for value in each))


def _outcomes(logits, known, teacher_w, lesson):
  """Log-probs of teacher and student over the outcomes that are compared, and the teacher's most likely id."""
  if teacher_w is not None:
    theirs = _capped(_raw(*known, teacher_w, lesson.teacher_dtype), lesson.teacher_softcap) / lesson.temperature
    return jax.nn.log_softmax(theirs, -1), jax.nn.log_softmax(logits, -1), theirs.argmax(-1)
  ids, logps = known
  ours = jnp.take_along_axis(logits, ids, -1)
  if logps.shape[-1] > ids.shape[-1]:
    rest = jax.nn.logsumexp(jnp.put_along_axis(logits, ids, NONE, -1, inplace=False), -1, keepdims=True)
    ours = jnp.concatenate([ours, rest], -1)
  return jax.nn.log_softmax(logps.astype(jnp.float32), -1), jax.nn.log_softmax(ours, -1), ids[..., 0]


def _raw(x, w, dtype):
  return jnp.tensordot(x.astype(dtype), w.astype(dtype), 1, preferred_element_type=jnp.float32)


def _capped(raw, softcap):
  return raw if softcap is None else softcap * jnp.tanh(raw / softcap)


def _added(each, weights_BL):
  return TaughtSums(*(jnp.sum(weights_BL * value) for value in each))


def _check(x: Any, w: Any, targets: Any, weights: Any, known: Any) -> None:
  fits = x.ndim == known.ndim == 3 and w.ndim == 2 and x.shape[2] == w.shape[0]
  if not fits or any(a.shape[:2] != x.shape[:2] for a in (targets, weights, known)):
    shapes = ', '.join(str(a.shape) for a in (x, w, targets, weights, known))
    raise ValueError(f'a lesson takes x[B,L,D], w[D,V], targets[B,L], weights[B,L] and what is known[B,L,..], not {shapes}')
