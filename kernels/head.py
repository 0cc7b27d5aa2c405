"""The last matmul and the softmax over the vocabulary, tile by tile: no array of [B, L, V] is ever held.

A tile is some positions of every row, so that rows may lie on different devices. `weighted_nll` is linear in its weights,
so its gradient is known up to one factor as soon as a tile's logits are: it is taken then and there, and the backward
pass multiplies by that factor (the idea of Hsu et al. 2024, "Liger Kernel"). `token_logp` is for losses that are not
linear in log-probabilities; its backward pass computes the logits again. A tile in which nothing counts, such as that of
prompts or of padding, is not computed at all.

Letters: B rows, L positions, D width, V vocabulary, T tiles.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.tiles import operand_dtype, pull, scan, sums, total


class HeadSums(NamedTuple):
  """Sums over all positions of weight times a quantity, f32[] each."""

  nll: jax.Array                      # - log p(target), nats
  z: jax.Array                        # (log of the sum of exponentiated logits) squared
  correct: jax.Array                  # 1 where the target's logit is above all others
  spread: jax.Array                   # the mean of - log p over the vocabulary, nats; 0 unless labels are smoothed


@dataclass(frozen=True)
class Head:
  """The static half of a call."""

  softcap: float | None
  dtype: jnp.dtype
  z_coefficient: float = 0.0
  temperature: float = 1.0
  smoothing: float = 0.0
  groups: int = 1


class Tokens(NamedTuple):
  """What is known of each token once its logits have been seen."""

  top: jax.Array                      # the largest logit
  total: jax.Array                    # sum of exp(logit - top)
  picked: jax.Array                   # the target's logit
  correct: jax.Array                  # bool

  @property
  def lse(self) -> jax.Array:
    return self.top + jnp.log(self.total)


def token_logp(x_BLD: jax.Array, w_DV: jax.Array, targets_BL: jax.Array, *, softcap: float | None = None,
               temperature: float = 1.0, dtype: jnp.dtype | type | None = None, groups: int = 1) -> jax.Array:
  """log p(target) under softmax(cap(x w) / temperature): f32[B, L], nats. Operands are cast to `dtype` (None: as they are).

  `groups` as in `weighted_nll`. Raises: ValueError for shapes that do not fit.
  """
  _check(x_BLD, w_DV, targets_BL)
  head = Head(softcap, operand_dtype(x_BLD, w_DV, dtype), temperature=temperature, groups=groups)
  return _logp(x_BLD, w_DV, targets_BL, head)


def weighted_nll(x_BLD: jax.Array, w_DV: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array, *,
                 softcap: float | None = None, z_coefficient: float = 0.0, smoothing: float = 0.0,
                 dtype: jnp.dtype | type | None = None, groups: int = 1) -> HeadSums:
  """Weighted sums of - log p(target) under softmax(cap(x w)), of its squared log-partition, of hits, and of `spread`.

  Differentiate `(1 - smoothing) * nll + smoothing * spread + z_coefficient * z` and nothing else: that gradient is computed on
  the way forward, and any other mix comes out as NaN. The first two are the cross-entropy of labels of which a share lies
  evenly on the vocabulary (Szegedy et al. 2016). Where the weight is 0, x, target and all that follows from them are ignored.
  Operands are cast to `dtype` (None: as they are); sums and the gradient of w are added up in float32. Where rows are spread
  over devices, `groups` says over how many (a divisor of B): the gradient of w is then exchanged once, not in every tile.
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
  x_BLD, targets_BL = _weighed(x_BLD, targets_BL, weights_BL)
  w = w_DV.astype(head.dtype)

  def tile(carry, part):
    x, targets, weights = part
    logits = _logits(x, w, head)
    return carry, _each(logits, _tokens(logits, targets), weights, head)

  part = x_BLD, targets_BL, weights_BL
  return _sums(scan(tile, None, part, w.shape[1], live_BL=weights_BL != 0)[1], weights_BL)


def _nll_forward(x_BLD, w_DV, targets_BL, weights_BL, head):
  x_BLD, targets_BL = _weighed(x_BLD, targets_BL, weights_BL)
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
  """What `HeadSums` adds up, of each token that counts: 0 elsewhere, as in a tile that is not computed."""
  spread = tokens.lse - logits.mean(-1) if head.smoothing else jnp.zeros_like(tokens.lse)
  each = tokens.lse - tokens.picked, tokens.lse ** 2, tokens.correct, spread
  return HeadSums(*(jnp.where(weights != 0, value, 0.0) for value in each))


def _sums(each, weights_BL):
  return HeadSums(*(jnp.sum(weights_BL * value) for value in each))


def _weighed(x_BLD, targets_BL, weights_BL):
  """The positions that count; the others, whatever they held, as zeros."""
  counts = weights_BL != 0
  return jnp.where(counts[..., None], x_BLD, 0), jnp.where(counts, targets_BL, 0)


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
  """The gradients of x and w for logits whose gradient is a * exps - b * label, a and b for each token."""
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
