"""Which tokens of an answer get how much of the credit: from the rewards of a lot of answers to the columns of batches.

    Grouped()       GRPO: each answer against the others to its question          LeaveOneOut()   RLOO
    FromCritic()    PPO: generalised advantage estimates, with a critic's values
    Best()          the best answer to each question is learnt like a text (best-of-n, rejection sampling)
    Above(0.5)      all answers with such a reward are (expert iteration); Everyone()  all are (sequence distillation)

All of it looks across answers, so it happens in the source of batches, over all answers of an iteration at once.

Letters: B answers (those to one question follow one another), T positions of rows.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from align import advantages
from align.advantages import Deviation
from model.errors import ConfigError
from train.types import Form

Array = np.ndarray | jax.Array


class Judged(NamedTuple):
  """A lot of answers with all that is known of them. float32."""

  rewards_B: Array
  mask_BT: Array                      # 1 on what was sampled and counts
  kl_BT: Array                        # beta times how far the policy is from its reference at each token; 0 without one
  values_BT: Array | None             # of a critic, before each token; None without one
  group: int                          # answers to a question


class Credit(ABC):
  """How answers share the credit. `form` is what the rows then are: to be learnt like a text, or by a policy's gradient."""

  form: ClassVar[Form] = 'rollouts'
  critic: ClassVar[bool] = False      # it needs a critic's values
  compares: ClassVar[bool] = False    # it needs several answers to a question

  @abstractmethod
  def __call__(self, judged: Judged) -> dict[str, Array]:
    """Columns [B, T]: advantage (and returns) of tokens; or mask, where the rows are text."""


def shaped(judged: Judged) -> jax.Array:
  """The reward of a whole answer less what its distance from the reference costs, f32[B]."""
  return jnp.asarray(judged.rewards_B, jnp.float32) - jnp.where(judged.mask_BT > 0, judged.kl_BT, 0.0).sum(1)


def _spread(advantage_B: jax.Array, mask_BT: Array) -> jax.Array:
  return jnp.where(mask_BT > 0, advantage_B[:, None], 0.0)


@dataclass(frozen=True)
class Grouped(Credit):
  """(reward - mean) / (deviation + eps) within the answers to a question. Shao et al. 2024; 'none': Dr. GRPO."""

  deviation: Deviation = 'sample'
  eps: float = 1e-4

  compares: ClassVar[bool] = True

  def __call__(self, judged: Judged) -> dict[str, Array]:
    advantage_B = advantages.grouped(shaped(judged), judged.group, deviation=self.deviation, eps=self.eps)
    return {'advantage': _spread(advantage_B, judged.mask_BT)}


@dataclass(frozen=True)
class LeaveOneOut(Credit):
  """The reward less the mean of the other answers' to the question (RLOO, Ahmadian et al. 2024)."""

  compares: ClassVar[bool] = True

  def __call__(self, judged: Judged) -> dict[str, Array]:
    return {'advantage': _spread(advantages.leave_one_out(shaped(judged), judged.group), judged.mask_BT)}


@dataclass(frozen=True)
class FromCritic(Credit):
  """Generalised advantage estimates (Schulman et al. 2015), whitened over all tokens of the iteration (Huang et al. 2024).

  The reward stands at an answer's last token, and each token pays for its own distance from the reference.
  """

  gamma: float = 1.0
  decay: float = 0.95
  whiten: Deviation = 'population'    # what advantages are divided by; 'none' also leaves their mean as it is

  critic: ClassVar[bool] = True

  def __post_init__(self):
    if not (0 <= self.gamma <= 1 and 0 <= self.decay <= 1):
      raise ConfigError('config.out-of-range', f'gamma = {self.gamma}, decay = {self.decay}', 'they discount what comes later',
                        'give numbers from 0 to 1')

  def __call__(self, judged: Judged) -> dict[str, Array]:
    assert judged.values_BT is not None, 'rollouts with this credit ask a critic'
    rewards_BT = advantages.token_rewards(jnp.asarray(judged.rewards_B), jnp.asarray(judged.kl_BT),
                                          jnp.asarray(judged.mask_BT), beta=1.0)
    found = advantages.gae(rewards_BT, jnp.asarray(judged.values_BT), jnp.asarray(judged.mask_BT), gamma=self.gamma,
                           decay=self.decay)
    advantage_BT = found.advantages_BT
    if self.whiten != 'none':
      advantage_BT = advantages.whiten(advantage_BT, jnp.asarray(judged.mask_BT), deviation=self.whiten)
    return {'advantage': advantage_BT, 'returns': found.returns_BT}


class Chosen(Credit):
  """Some answers are learnt like a text, each of their tokens alike, the others not at all."""

  form: ClassVar[Form] = 'text'

  @abstractmethod
  def chosen(self, judged: Judged) -> np.ndarray:
    """Which answers, bool[B]."""

  def __call__(self, judged: Judged) -> dict[str, Array]:
    return {'mask': np.where(self.chosen(judged)[:, None], judged.mask_BT, 0.0).astype(np.float32)}


@dataclass(frozen=True)
class Best(Chosen):
  """The answer with the largest reward to each question; the first of them where several have it."""

  compares: ClassVar[bool] = True

  def chosen(self, judged: Judged) -> np.ndarray:
    rewards_PG = np.asarray(shaped(judged)).reshape(-1, judged.group)
    return (np.arange(judged.group) == rewards_PG.argmax(1)[:, None]).reshape(-1)


@dataclass(frozen=True)
class Above(Chosen):
  """The answers whose reward is at least this."""

  least: float

  def chosen(self, judged: Judged) -> np.ndarray:
    return np.asarray(shaped(judged)) >= self.least


@dataclass(frozen=True)
class Everyone(Chosen):
  """All answers: those of a teacher, for sequence-level distillation (Kim and Rush 2016)."""

  def chosen(self, judged: Judged) -> np.ndarray:
    return np.ones(len(judged.rewards_B), bool)
