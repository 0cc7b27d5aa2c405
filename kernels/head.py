"""The language-model head and its cross-entropy, fused and tiled: no array of [B, L, V] is ever in memory.

    logits = cap(x w),   nll = logsumexp(logits) - logits[target],   z = logsumexp(logits)^2

A tile is some positions of every row, so that rows may be sharded. `weighted_nll` is linear in its weights, so its gradients
are computed in the forward pass, from the same logits, and the backward pass only multiplies by one factor (as in Liger Kernel,
Hsu et al. 2024). `token_logp` is for losses that are not linear in the log-probs; its backward pass recomputes the logits.
Tiles in which every weight or incoming gradient is 0, such as those of prompts or padding, are skipped.

Letters: B rows, L positions, D width, V vocabulary, T tiles.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.tiles import operand_dtype, pull, scan, sums, total, weighted


class HeadSums(NamedTuple):
  """Sums over all positions of weight times a quantity, f32[] each."""

  nll: jax.Array                      # - log p(target), nats
  z: jax.Array                        # logsumexp(logits) squared: the z-loss
  correct: jax.Array                  # 1 where the target's logit is above all others
  spread: jax.Array                   # the mean of -log p over the vocabulary, nats; 0 without label smoothing


@dataclass(frozen=True)
class Head:
  """The static arguments of a call."""

  softcap: float | None
  dtype: jnp.dtype
  z_coefficient: float = 0.0
  temperature: float = 1.0
  smoothing: float = 0.0
  groups: int = 1


class Tokens(NamedTuple):
  """What is computed from the logits of each token."""

  top: jax.Array                      # the largest logit
  total: jax.Array                    # sum of exp(logit - top)
  picked: jax.Array                   # the target's logit
  correct: jax.Array                  # bool

  @property
  def lse(self) -> jax.Array:
    return self.top + jnp.log(self.total)


def token_logp(x_BLD: jax.Array, w_DV: jax.Array, targets_BL: jax.Array, *, softcap: float | None = None,
               temperature: float = 1.0, dtype: jnp.dtype | type | None = None, groups: int = 1) -> jax.Array:
  """log p(target) under softmax(cap(x w) / temperature): f32[B, L], nats. Operands are cast to `dtype` (None: no cast).

  `groups` is as in `weighted_nll`.

  Raises: ValueError for shapes that do not fit.
  """
  _check(x_BLD, w_DV, targets_BL)
  head = Head(softcap, operand_dtype(x_BLD, w_DV, dtype), temperature=temperature, groups=groups)
  return _logp(x_BLD, w_DV, targets_BL, head)


def weighted_nll(x_BLD: jax.Array, w_DV: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array, *,
                 softcap: float | None = None, z_coefficient: float = 0.0, smoothing: float = 0.0,
                 dtype: jnp.dtype | type | None = None, groups: int = 1) -> HeadSums:
  """Weighted sums of -log p(target) under softmax(cap(x w)), of the z-loss, of correct predictions, and of `spread`.

  Only `(1 - smoothing) * nll + smoothing * spread + z_coefficient * z` may be differentiated: its gradient is computed in the
  forward pass, and that of any other combination is NaN. Its first two terms are cross-entropy with label smoothing (Szegedy
  et al. 2016). Positions of weight 0 are ignored, whatever they hold. Operands are cast to `dtype` (None: no cast); sums and
  the gradient of w are accumulated in float32. `groups` is the number of devices over which batch rows are sharded, a divisor
  of B: the gradient of w is then all-reduced once and not in every tile.

  Raises: ValueError for shapes that do not fit.
  """
  _check(x_BLD, w_DV, targets_BL, weights_BL)
  head = Head(softcap, operand_dtype(x_BLD, w_DV, dtype), z_coefficient, smoothing=smoothing, groups=groups)
  return _nll(x_BLD, w_DV, targets_BL, weights_BL.astype(jnp.float32), head)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _logp(x_BLD, w_DV, targets_BL, head):
  return _logp_forward(x_BLD, w_DV, targets_BL, head)[0]


def _logp_forward(x_BLD, w_DV, targets_BL, head):
  w = w_DV.astype(head.dtype)

  def tile(carry, part):
    x, targets = part
    return carry, _tokens(_logits(x, w, head), targets)

  tokens = scan(tile, None, (x_BLD, targets_BL), w.shape[1])[1]
  return tokens.picked - tokens.lse, (x_BLD, w_DV, targets_BL, tokens.lse)


def _logp_backward(head, saved, g_BL):
  x_BLD, w_DV, targets_BL, lse_BL = saved
  w = w_DV.astype(head.dtype)

  def tile(so_far, part):
    x, targets, lse, g = part
    logits = _logits(x, w, head)
    dx, dw = _pull(x, w, logits, jnp.exp(logits - lse[..., None]), targets, -g, -g, head)
    return so_far + dw, dx.astype(x_BLD.dtype)

  part = x_BLD, targets_BL, lse_BL, g_BL
  dw, dx_BLD = scan(tile, sums(w, head.groups), part, w.shape[1], live_BL=g_BL != 0)
  return dx_BLD, total(dw, head.groups).astype(w_DV.dtype), None


_logp.defvjp(_logp_forward, _logp_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _nll(x_BLD, w_DV, targets_BL, weights_BL, head):
  x_BLD, targets_BL = weighted(weights_BL, (x_BLD, targets_BL))
  w = w_DV.astype(head.dtype)

  def tile(carry, part):
    x, targets, weights = part
    logits = _logits(x, w, head)
    return carry, _each(logits, _tokens(logits, targets), weights, head)

  part = x_BLD, targets_BL, weights_BL
  return _sums(scan(tile, None, part, w.shape[1], live_BL=weights_BL != 0)[1], weights_BL)


def _nll_forward(x_BLD, w_DV, targets_BL, weights_BL, head):
  x_BLD, targets_BL = weighted(weights_BL, (x_BLD, targets_BL))
  w = w_DV.astype(head.dtype)

  def tile(so_far, part):
    x, targets, weights = part
    logits = _logits(x, w, head)
    tokens = _tokens(logits, targets)
    exps = jnp.exp(logits - tokens.top[..., None])
    share = weights * (1 + 2 * head.z_coefficient * tokens.lse) / tokens.total
    dx, dw = _pull(x, w, logits, exps, targets, share, weights, head)
    return so_far + dw, (_each(logits, tokens, weights, head), dx.astype(x_BLD.dtype))

  part = x_BLD, targets_BL, weights_BL
  dw, (each, dx_BLD) = scan(tile, sums(w, head.groups), part, w.shape[1], live_BL=weights_BL != 0)
  return _sums(each, weights_BL), (dx_BLD, total(dw, head.groups).astype(w_DV.dtype), each)


def _nll_backward(head, saved, g):
  dx_BLD, dw_DV, each = saved
  factor = g.nll / (1 - head.smoothing)
  others = ((g.z, head.z_coefficient * factor), (g.spread, head.smoothing * factor))
  fits = [jnp.abs(got - wanted) <= 1e-3 * jnp.abs(wanted) for got, wanted in others]
  factor = jnp.where(jnp.all(jnp.stack(fits)), factor, jnp.nan)
  dweights_BL = sum(a * b for a, b in zip(g, each))
  return (factor * dx_BLD).astype(dx_BLD.dtype), (factor * dw_DV).astype(dw_DV.dtype), None, dweights_BL


_nll.defvjp(_nll_forward, _nll_backward)


def _each(logits, tokens, weights, head):
  """The terms of `HeadSums` for each token: 0 where the weight is 0, as in tiles that are skipped."""
  spread = tokens.lse - logits.mean(-1) if head.smoothing else jnp.zeros_like(tokens.lse)
  each = tokens.lse - tokens.picked, tokens.lse ** 2, tokens.correct, spread
  return HeadSums(*(jnp.where(weights != 0, value, 0.0) for value in each))


def _sums(each, weights_BL):
  return HeadSums(*(jnp.sum(weights_BL * value) for value in each))


def _logits(x, w, head):
  y = jnp.tensordot(x.astype(head.dtype), w, 1, preferred_element_type=jnp.float32)
  y = y if head.softcap is None else head.softcap * jnp.tanh(y / head.softcap)
  return y if head.temperature == 1.0 else y / head.temperature


def _hot(targets, logits):
  return jnp.arange(logits.shape[-1]) == targets[..., None]


def _tokens(logits, targets):
  picked = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
  other = jnp.max(jnp.where(_hot(targets, logits), -jnp.inf, logits), -1)
  top = jnp.maximum(picked, other)
  return Tokens(top, jnp.exp(logits - top[..., None]).sum(-1), picked, picked > other)


def _pull(x, w, logits, exps, targets, a, b, head):
  """The gradients of x and w where that of the logits is a * exps - b * labels; a and b are one number per token."""
  even = head.smoothing / logits.shape[-1]
  labels = jnp.where(_hot(targets, logits), (1 - head.smoothing + even) * b[..., None], even * b[..., None] if even else 0)
  dlogits = exps * a[..., None] - labels
  if head.softcap is not None:
    dlogits = dlogits * (1 - (logits * head.temperature / head.softcap) ** 2)
  if head.temperature != 1.0:
    dlogits = dlogits / head.temperature
  return pull(x, w, dlogits, head.dtype, head.groups)


def _check(x, w, targets, weights=None):
  fits = x.ndim == 3 and w.ndim == 2 and x.shape[2] == w.shape[0]
  if not fits or any(a.shape != x.shape[:2] for a in (targets, weights) if a is not None):
    shapes = ', '.join(str(a.shape) for a in (x, w, targets, weights) if a is not None)
    raise ValueError(f'the head takes x[B,L,D], w[D,V], targets[B,L] and weights[B,L], not {shapes}')
