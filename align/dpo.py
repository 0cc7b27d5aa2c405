"""DPO and its family: a policy learns from pairs of answers without a reward model.

    reward of an answer y to a prompt x  =  beta * (log p(y | x) - log p_ref(y | x))
    DPO                                  =  -log sigmoid(reward of the chosen answer - reward of the rejected one)

    DPO()      Rafailov et al. 2023        IPO()      Azar et al. 2023
    Hinge()    Zhao et al. 2023            SimPO()    Meng et al. 2024, without a reference
                                           ORPO()     Hong et al. 2024, without a reference

The losses themselves are functions of arrays in `align.losses`; here are the objectives that a run learns by, over batches of
pairs (`align.pairwise`). Where p_ref comes from: `align.answer_logps`.

Letters: B pairs, P the two sides.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from align import losses
from align.answer_logps import pair_logps, reference_logps
from align.pairwise import agreement, mean, penalties, weights, with_penalties
from align.reward import refuse_score
from model.decoder import Model
from model.errors import ConfigError
from train.types import Form, Loss, LossFn, Objective

if TYPE_CHECKING:
  from train.run import Run


class Compared(NamedTuple):
  """Both sides of pairs under the policy and its reference, f32[B, 2] each, the chosen side first."""

  logp_BP: jax.Array                 # nats: sums over the tokens of answers
  reference_BP: jax.Array            # the same of the reference; 0 for objectives without one
  tokens_BP: jax.Array               # how many tokens the sums are over

  @property
  def ratio_BP(self) -> jax.Array:
    """log p - log p_ref, nats."""
    return self.logp_BP - self.reference_BP

  def per_token(self) -> 'Compared':
    """The same with means over tokens in place of sums; 0 for an answer without tokens."""
    tokens_BP = jnp.maximum(self.tokens_BP, 1.0)
    return Compared(self.logp_BP / tokens_BP, self.reference_BP / tokens_BP, self.tokens_BP)

  def swapped(self) -> 'Compared':
    """The same pairs with the rejected side first."""
    return Compared(*(each_BP[:, ::-1] for each_BP in self))

  def columns(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Log-probs of chosen and rejected, then of both under the reference, f32[B] each: the arguments of `align.losses`."""
    return *self.logp_BP.T, *self.reference_BP.T


@dataclass(frozen=True)
class Preference(Objective):
  """An objective over pairs. Under a soft label the loss is its expectation: label * loss + (1 - label) * loss of the swap."""

  form: ClassVar[Form] = 'pairs'
  referred: ClassVar[bool] = True    # it compares the policy with a reference

  def check(self, run: 'Run') -> None:
    refuse_score(self, run)

  @abstractmethod
  def loss(self, sides: Compared) -> jax.Array:
    """The loss of each pair, f32[B]."""

  @abstractmethod
  def rewards(self, sides: Compared) -> jax.Array:
    """The implicit rewards, f32[B, 2]: the loss pushes the chosen side's above the rejected one's."""

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      logp_BP, tokens_BP, aux = pair_logps(model, params, batch)
      reference_BP = reference_logps(model, params, batch) if self.referred else jnp.zeros_like(logp_BP)
      return self.loss_of(Compared(logp_BP, reference_BP, tokens_BP), batch['label'], weights(batch), aux)

    return loss

  def loss_of(self, sides: Compared, label_B: jax.Array, weights_B: jax.Array, aux: dict[str, jax.Array]) -> Loss:
    """The loss from log-probs alone, with metrics: accuracy (ties half), rewards, and log-probs per token of each side."""
    loss_B = label_B * self.loss(sides) + (1.0 - label_B) * self.loss(sides.swapped())
    rewards_BP, (chosen_B, rejected_B, *_) = self.rewards(sides), sides.per_token().columns()
    metrics = {'accuracy': agreement(rewards_BP), 'reward_gap': rewards_BP[:, 0] - rewards_BP[:, 1],
               'reward_chosen': rewards_BP[:, 0], 'logp_chosen': chosen_B, 'logp_rejected': rejected_B}
    return with_penalties(mean(loss_B, weights_B), {name: mean(each_B, weights_B) for name, each_B in metrics.items()},
                          penalties(aux, weights_B))


@dataclass(frozen=True)
class DPO(Preference):
  """Direct preference optimisation (Rafailov et al. 2023) on log-probs summed over answers.

  `smoothing` is the share of labels that are wrong: the conservative form (Mitchell 2023).
  """

  beta: float = 0.1
  smoothing: float = 0.0

  def __post_init__(self):
    _positive(beta=self.beta)
    if not 0 <= self.smoothing <= 0.5:
      raise ConfigError('config.out-of-range', f'smoothing = {self.smoothing}', 'it is the share of labels that are wrong',
                        'give 0 to 0.5')

  def loss(self, sides: Compared) -> jax.Array:
    return losses.dpo(*sides.columns(), beta=self.beta, smoothing=self.smoothing)

  def rewards(self, sides: Compared) -> jax.Array:
    return self.beta * sides.ratio_BP


@dataclass(frozen=True)
class IPO(Preference):
  """Identity preference optimisation (Azar et al. 2023): log-probs per token, towards a margin of 1 / (2 beta)."""

  beta: float = 0.1

  def __post_init__(self):
    _positive(beta=self.beta)

  def loss(self, sides: Compared) -> jax.Array:
    return losses.ipo(*sides.per_token().columns(), beta=self.beta)

  def rewards(self, sides: Compared) -> jax.Array:
    return self.beta * sides.per_token().ratio_BP


@dataclass(frozen=True)
class Hinge(Preference):
  """SLiC's hinge (Zhao et al. 2023) against the reference (Liu et al. 2023), on log-probs summed over answers."""

  beta: float = 0.1

  def __post_init__(self):
    _positive(beta=self.beta)

  def loss(self, sides: Compared) -> jax.Array:
    return losses.hinge(*sides.columns(), beta=self.beta)

  def rewards(self, sides: Compared) -> jax.Array:
    return self.beta * sides.ratio_BP


@dataclass(frozen=True)
class SimPO(Preference):
  """Simple preference optimisation (Meng et al. 2024): log-probs per token, a margin of `gamma`, no reference."""

  beta: float = 2.0
  gamma: float = 1.0

  referred: ClassVar[bool] = False

  def __post_init__(self):
    _positive(beta=self.beta)

  def loss(self, sides: Compared) -> jax.Array:
    chosen_B, rejected_B, *_ = sides.per_token().columns()
    return losses.simpo(chosen_B, rejected_B, beta=self.beta, gamma=self.gamma)

  def rewards(self, sides: Compared) -> jax.Array:
    return self.beta * sides.per_token().logp_BP


@dataclass(frozen=True)
class ORPO(Preference):
  """Odds ratio preference optimisation (Hong et al. 2024): nll per token of the chosen answer, plus `weight` times the odds."""

  weight: float = 0.1

  referred: ClassVar[bool] = False

  def __post_init__(self):
    _positive(weight=self.weight)

  def loss(self, sides: Compared) -> jax.Array:
    chosen_B, rejected_B, *_ = sides.per_token().columns()
    return -chosen_B + self.weight * losses.orpo_odds(chosen_B, rejected_B)

  def rewards(self, sides: Compared) -> jax.Array:
    return losses.log_odds(sides.per_token().logp_BP)


def _positive(**fields: float) -> None:
  for name, value in fields.items():
    if not value > 0:
      raise ConfigError('config.out-of-range', f'{name} = {value}', 'it weighs what is learnt', 'give more than 0')
