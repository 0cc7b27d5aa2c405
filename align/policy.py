"""PPO, GRPO and their kin: a policy learns from the rewards of its own answers.

    loss of a token  =  max(-A r, -A clip(r, 1 - low, 1 + high)),        r = p(token) / p_old(token)        Schulman et al. 2017

They differ in the advantage A (`align.credit`), in whose mean the loss is (`align.average`), in what the ratio r is of, and in
the price of distance from a reference (`align.kl`). Batches are rollouts (`align.rollout`, columns: `align.rollout_rows`).

    GRPO()                                            Shao et al. 2024        with Rollouts(credit=Grouped())
    GRPO(average=PerConstant(128))                    Dr. GRPO, Liu 2025      Grouped(deviation='none')
    GRPO(average=PerToken(), high=0.28)               DAPO, Yu 2025           Grouped(), truncated=Ignored(), refill=4
    GRPO(ratio=PerSequence(), low=3e-4, high=4e-4)    GSPO, Zheng 2025        Grouped()
    GRPO(average=PerToken())                          RLOO, Ahmadian 2024     LeaveOneOut(), kl=Fixed(0.05)
    PPO()                                             Schulman 2017           FromCritic(), kl=Adaptive()

Letters: B rows, L positions, V vocabulary.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax

from align import losses
from align.average import Average, PerAnswer, PerToken
from align.critic import values
from align.kl import k3
from model.decoder import Model, own
from model.errors import ConfigError
from train.objectives import Shifted, shift
from train.types import Batch, Form, Loss, LossFn, Mean, Objective, Params


@dataclass(frozen=True)
class EachToken:
  """Every token has a ratio of its own."""

  def __call__(self, logp_BL: jax.Array, old_BL: jax.Array, mask_BL: jax.Array) -> jax.Array:
    return logp_BL


@dataclass(frozen=True)
class PerSequence:
  """The tokens of an answer share the geometric mean of their ratios (GSPO); its clip range is far smaller."""

  def __call__(self, logp_BL: jax.Array, old_BL: jax.Array, mask_BL: jax.Array) -> jax.Array:
    return losses.sequence_logp(logp_BL, old_BL, mask_BL)


class Forward(NamedTuple):
  """A policy's forward pass: what belongs to a token lies at the position before it, which predicts it."""

  row: Shifted
  logp_BL: jax.Array                   # f32, nats: of the tokens that were sampled
  entropy_BL: jax.Array | None         # f32, nats: of the whole distribution; None where its price is 0
  aux: dict[str, jax.Array]            # f32[B] each: the router's penalties


@dataclass(frozen=True, kw_only=True)
class GRPO(Objective):
  """The clipped policy gradient (Shao et al. 2024).

  The ratio is clipped to 1 - low .. 1 + high; `cap` bounds it where the advantage is negative (dual clip). `beta` weighs the
  distance k3 from the reference in the loss, `entropy` a bonus per nat of entropy (which costs the logits of all positions).
  `temperature` is that of sampling.
  """

  low: float = 0.2
  high: float = 0.2
  cap: float | None = None
  average: Average = PerAnswer()
  ratio: EachToken | PerSequence = EachToken()
  beta: float = 0.0
  entropy: float = 0.0
  temperature: float = 1.0

  form: ClassVar[Form] = 'rollouts'

  def __post_init__(self):
    if min(self.beta, self.entropy) < 0 or not 0 < self.low < 1 or not self.high > 0 or not self.temperature > 0:
      raise ConfigError('config.out-of-range', f'low = {self.low}, high = {self.high}, beta = {self.beta}, entropy = '
                        f'{self.entropy}, temperature = {self.temperature}', 'a ratio is held between 1 - low and 1 + high, '
                        'and prices are 0 or more', 'use for example low=0.2, high=0.2')
    if self.cap is not None and self.cap <= 1:
      raise ConfigError('config.out-of-range', f'cap = {self.cap}', 'it bounds ratios from above', 'use more than 1, or None')

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      return self.loss_of(self.forward(model, params, batch), batch)

    return loss

  def forward(self, model: Model, params: Params, batch: Batch) -> Forward:
    """Log-probs of the sampled tokens, and the entropy if it has a price."""
    row, params = shift(batch), own(params)
    hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
    logp_BL = model.logp(params, hidden.x_BLD, row.targets_BL, self.temperature)
    entropy_BL = losses.entropy(model.logits(params, hidden.x_BLD) / self.temperature) if self.entropy else None
    return Forward(row, logp_BL, entropy_BL, hidden.aux)

  def loss_of(self, now: Forward, batch: Batch) -> Loss:
    """The loss from log-probs alone, with metrics, means over tokens.

    `ratio`; `clipped`, the share of ratios at which the clip stops the gradient; `moved`, an estimate of KL(p_old || p);
    `surprise`, -log p.
    """
    mask_BL, old_BL, advantage_BL = now.row.weights_BL, batch['logp'][:, 1:], batch['advantage'][:, 1:]
    logp_BL = self.ratio(now.logp_BL, old_BL, mask_BL)
    loss_BL = losses.clipped_surrogate(logp_BL, old_BL, advantage_BL, low=self.low, high=self.high, cap=self.cap)
    loss_BL = loss_BL * batch['correction'][:, 1:]
    if self.beta:
      loss_BL = loss_BL + self.beta * k3(now.logp_BL, batch['ref'][:, 1:])
    if now.entropy_BL is not None:
      loss_BL = loss_BL - self.entropy * now.entropy_BL
    for penalty_B in now.aux.values():
      loss_BL = loss_BL + penalty_B[:, None]
    ratio_BL = losses.ratio(logp_BL, old_BL)
    clipped_BL = ((advantage_BL > 0) & (ratio_BL > 1 + self.high)) | ((advantage_BL < 0) & (ratio_BL < 1 - self.low))
    seen = {'ratio': ratio_BL, 'clipped': clipped_BL, 'moved': k3(old_BL, now.logp_BL), 'surprise': -now.logp_BL}
    return Loss(self.average(loss_BL, mask_BL), {name: PerToken()(jax.lax.stop_gradient(x_BL), mask_BL)
                                                 for name, x_BL in seen.items()})


@dataclass(frozen=True, kw_only=True)
class PPO(GRPO):
  """The same with critics (Schulman et al. 2017): `value_weight` times the value loss of each is added (`losses.value`).

  A critic and the policy share no weights that learn, so the weight matters to the clip of the gradient's norm alone.
  """

  average: Average = PerToken()
  value_clip: float | None = 0.2
  value_weight: float = 0.5
  critics: tuple[str, ...] = ('reward',)

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      now = self.forward(model, params, batch)
      objective, seen = self.loss_of(now, batch)
      for of in self.critics:
        values_BL = values(model, params, of, now.row.inputs_BL, now.row.segments_BL)
        error_BL = losses.value(values_BL, batch[f'values/{of}'][:, 1:], batch[f'returns/{of}'][:, 1:], clip=self.value_clip)
        mean = self.average(error_BL, now.row.weights_BL)
        objective = Mean(objective.total + self.value_weight * mean.total, objective.weight)
        seen |= {f'value_loss/{of}': mean, f'value/{of}': PerToken()(values_BL, now.row.weights_BL)}
      return Loss(objective, seen)

    return loss
