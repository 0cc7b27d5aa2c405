"""Policies learnt from rewards: objectives over batches of rollouts (`align.rollout_rows`).

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


class Step(NamedTuple):
  """What a policy makes of a batch: numbers of tokens [B, L], under the positions that foretell them."""

  row: Shifted
  logp_BL: jax.Array
  entropy_BL: jax.Array | None         # of all that could have been chosen, where the loss asks for it
  aux: dict[str, jax.Array]            # f32[B] each: the router's penalties


@dataclass(frozen=True, kw_only=True)
class GRPO(Objective):
  """The clipped policy gradient. `low` and `high` bound the ratio, `cap` that of answers that were worse (dual clip).

  `beta` is the price of k3 to the reference as a term of the loss, `entropy` what a nat of entropy is worth (it costs the
  logits of all positions).
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
      step = self.taken(model, params, batch)
      return self.learnt(step, batch)

    return loss

  def taken(self, model: Model, params: Params, batch: Batch) -> Step:
    """The forward pass."""
    row, params = shift(batch), own(params)
    hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
    logp_BL = model.logp(params, hidden.x_BLD, row.targets_BL, self.temperature)
    every_BL = losses.entropy(model.logits(params, hidden.x_BLD) / self.temperature) if self.entropy else None
    return Step(row, logp_BL, every_BL, hidden.aux)

  def learnt(self, step: Step, batch: Batch) -> Loss:
    """The loss of a forward pass, and what people look at: the ratio, how often it is clipped, how far the policy moved."""
    mask_BL, old_BL, advantage_BL = step.row.weights_BL, batch['logp'][:, 1:], batch['advantage'][:, 1:]
    now_BL = self.ratio(step.logp_BL, old_BL, mask_BL)
    loss_BL = losses.policy(now_BL, old_BL, advantage_BL, low=self.low, high=self.high, cap=self.cap)
    loss_BL = loss_BL * batch['correction'][:, 1:]
    if self.beta:
      loss_BL = loss_BL + self.beta * k3(step.logp_BL, batch['ref'][:, 1:])
    if step.entropy_BL is not None:
      loss_BL = loss_BL - self.entropy * step.entropy_BL
    for penalty_B in step.aux.values():
      loss_BL = loss_BL + penalty_B[:, None]
    ratio_BL = losses.ratio(now_BL, old_BL)
    clipped_BL = ((advantage_BL > 0) & (ratio_BL > 1 + self.high)) | ((advantage_BL < 0) & (ratio_BL < 1 - self.low))
    seen = {'ratio': ratio_BL, 'clipped': clipped_BL, 'moved': k3(old_BL, step.logp_BL), 'surprise': -step.logp_BL}
    return Loss(self.average(loss_BL, mask_BL), {name: PerToken()(jax.lax.stop_gradient(x_BL), mask_BL)
                                                 for name, x_BL in seen.items()})


@dataclass(frozen=True, kw_only=True)
class PPO(GRPO):
  """The same with critics: half the squared error of their values, times `value_weight`, is a term of the loss.

  A critic and the policy share no weights that learn, so the weight matters to the clip of the gradient's norm alone.
  """

  average: Average = PerToken()
  value_clip: float | None = 0.2
  value_weight: float = 0.5
  critics: tuple[str, ...] = ('reward',)

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      step = self.taken(model, params, batch)
      objective, seen = self.learnt(step, batch)
      for of in self.critics:
        values_BL = values(model, params, of, step.row.inputs_BL, step.row.segments_BL)
        error_BL = losses.value(values_BL, batch[f'values/{of}'][:, 1:], batch[f'returns/{of}'][:, 1:], clip=self.value_clip)
        mean = self.average(error_BL, step.row.weights_BL)
        objective = Mean(objective.total + self.value_weight * mean.total, objective.weight)
        seen |= {f'value_loss/{of}': mean, f'value/{of}': PerToken()(values_BL, step.row.weights_BL)}
      return Loss(objective, seen)

    return loss
