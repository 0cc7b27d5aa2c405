"""Language modelling under a constraint: learn a text, but not the forbidden tokens in it, which become unlikely instead.

    minimise the cross-entropy of the allowed tokens subject to mean charge(p(forbidden token)) <= most

A forbidden token is never a target, yet it is read: what follows it is learnt. In its place the loss is price * charge(p), with
p the probability that the model gives it. The price is a Lagrange multiplier, which the source holds (`align.avoid_rows`).

A batch holds what `train.objectives.shift` reads, forbidden f32[B, L+1] (1 on such tokens) and price f32[B] (the same in all
rows; nats that a charge of 1 costs, in the units of an allowed token's loss).

Letters: B rows, L positions.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from align.losses import CERTAIN
from model.decoder import Model
from model.errors import demand
from train.objectives import judged, shift
from train.types import Batch, Form, Loss, LossFn, Mean, Objective, Params


class Charge(ABC):
  """What a forbidden token costs, as a function of its log-prob."""

  @abstractmethod
  def __call__(self, logp_BL: jax.Array) -> jax.Array:
    """f32[B, L]: 0 for an impossible token, and more the likelier it is."""


@dataclass(frozen=True)
class Unlikelihood(Charge):
  """-log(1 - p), nats (Welleck et al. 2020): its gradient with respect to the logit of the token is p."""

  def __call__(self, logp_BL: jax.Array) -> jax.Array:
    logp_BL = jnp.minimum(logp_BL.astype(jnp.float32), -CERTAIN)
    rare_BL, common_BL = jnp.minimum(logp_BL, -0.7), jnp.maximum(logp_BL, -0.7)      # each exact on its side, and finite
    return -jnp.where(logp_BL < -0.7, jnp.log1p(-jnp.exp(rare_BL)), jnp.log(-jnp.expm1(common_BL)))


@dataclass(frozen=True)
class Probability(Charge):
  """p itself: the expected number of forbidden tokens. Its gradient, p (1 - p), vanishes where the model is sure of one."""

  def __call__(self, logp_BL: jax.Array) -> jax.Array:
    return jnp.exp(logp_BL.astype(jnp.float32))


class Paid(NamedTuple):
  """What the forbidden tokens of a batch cost."""

  charge: Mean                         # times the price, over forbidden tokens
  p: Mean                              # their probability


@dataclass(frozen=True)
class Avoid(Objective):
  """Cross-entropy of the allowed tokens, plus what the forbidden ones cost; `z_loss` as in `NextToken`."""

  charge: Charge = Unlikelihood()
  z_loss: float = 0.0

  form: ClassVar[Form] = 'marked'

  def __post_init__(self):
    demand(self.z_loss >= 0, 'Avoid.z_loss', self.z_loss, 'it is the weight of a penalty', 'give 0 or more')

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      row = shift(batch)
      forbidden_BL = batch['forbidden'][:, 1:]
      hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
      learnt = judged(model, params, hidden, row.targets_BL, row.weights_BL * (1.0 - forbidden_BL), self.z_loss)
      logp_BL = model.logp(params, hidden.x_BLD, row.targets_BL)
      paid = self.summed(logp_BL, row.weights_BL * forbidden_BL, batch['price'])
      seen = self.summed(jax.lax.stop_gradient(logp_BL), row.weights_BL * forbidden_BL)
      objective = Mean(learnt.objective.total + paid.charge.total, learnt.objective.weight)
      return Loss(objective, learnt.metrics | {'forbidden': seen.charge, 'forbidden_p': seen.p})

    return loss

  def summed(self, logp_BL: jax.Array, weights_BL: jax.Array, price_B: jax.Array | float = 1.0) -> Paid:
    """The charge times the price, and the probability, over the tokens whose weight is above 0."""
    each_B = jnp.broadcast_to(jnp.asarray(price_B, jnp.float32), logp_BL.shape[:1])[:, None]
    kept_BL, weight = weights_BL > 0, weights_BL.sum()
    charge_BL = jnp.where(kept_BL, self.charge(jnp.where(kept_BL, logp_BL, -1.0)) * weights_BL * each_B, 0.0)
    return Paid(Mean(charge_BL.sum(), weight), Mean(jnp.where(kept_BL, jnp.exp(logp_BL) * weights_BL, 0.0).sum(), weight))

  def measured(self, model: Model, params: Params, batch: Batch) -> Mean:
    """The left side of the constraint on a batch: the mean charge of its forbidden tokens."""
    row = shift(batch)
    hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
    logp_BL = model.logp(params, hidden.x_BLD, row.targets_BL)
    return self.summed(logp_BL, row.weights_BL * batch['forbidden'][:, 1:]).charge
