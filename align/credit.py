"""Credit: from the rewards of whole answers to the advantage of each token, or to which answers are learnt at all.

    Grouped()       GRPO: each answer against the others to its question
    LeaveOneOut()   RLOO: the same without itself in the mean
    FromCritic()    PPO: generalised advantage estimates, with a critic's values
    Best()          the best answer to each question is learnt like a text (best-of-n, rejection sampling)
    Above(0.5)      all answers with at least that reward are (expert iteration)
    Everyone()      all answers are (sequence distillation)

All of it looks across answers, so it happens in the source of batches, over all answers of an iteration at once. The functions
of arrays behind it are in `align.advantages`.

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
  """The answers of an iteration with what is known of them, float32."""

  rewards_B: Array                    # of whole answers
  mask_BT: Array                      # 1 on the sampled tokens that count
  kl_BT: Array                        # beta times log p - log p_ref at each token; 0 without a reference
  values_BT: Array | None             # of a critic, before each token; None without one
  group: int                          # answers to a question


class Credit(ABC):
  """A way to give credit. `form` is what the rows then are: `rollouts` for a policy's objective, `text` for a text's."""

  form: ClassVar[Form] = 'rollouts'
  critic: ClassVar[bool] = False      # it needs a critic's values
  compares: ClassVar[bool] = False    # it needs several answers to a question

  @abstractmethod
  def __call__(self, judged: Judged) -> dict[str, Array]:
    """Columns f32[B, T]: advantage, with a critic also returns; or mask alone, where the rows are text."""


def shaped(judged: Judged) -> jax.Array:
  """The reward of each answer less its KL penalty, f32[B]."""
  return jnp.asarray(judged.rewards_B, jnp.float32) - jnp.where(judged.mask_BT > 0, judged.kl_BT, 0.0).sum(1)


def _spread(advantage_B: jax.Array, mask_BT: Array) -> jax.Array:
  return jnp.where(mask_BT > 0, advantage_B[:, None], 0.0)


@dataclass(frozen=True)
class Grouped(Credit):
  """GRPO's advantage (Shao et al. 2024): (reward - mean) / (deviation + eps) of the answers to a question; 'none': Dr. GRPO."""

  deviation: Deviation = 'sample'
  eps: float = 1e-4

  compares: ClassVar[bool] = True

  def __call__(self, judged: Judged) -> dict[str, Array]:
    advantage_B = advantages.grouped(shaped(judged), judged.group, deviation=self.deviation, eps=self.eps)
    return {'advantage': _spread(advantage_B, judged.mask_BT)}


@dataclass(frozen=True)
class LeaveOneOut(Credit):
  """RLOO's advantage: the reward less the mean of the other answers to the question (Ahmadian et al. 2024)."""

  compares: ClassVar[bool] = True

  def __call__(self, judged: Judged) -> dict[str, Array]:
    return {'advantage': _spread(advantages.leave_one_out(shaped(judged), judged.group), judged.mask_BT)}


@dataclass(frozen=True)
class FromCritic(Credit):
  """PPO's advantage: GAE (Schulman et al. 2015), whitened over all tokens of the iteration (Huang et al. 2024).

  The reward stands at an answer's last token, and each token pays its own KL penalty. `decay` is the paper's lambda.
  """

  gamma: float = 1.0
  decay: float = 0.95
  whiten: Deviation = 'population'    # the deviation that advantages are divided by; 'none' does not whiten at all

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
  """Some answers are learnt like a text, all of their tokens alike; the others not at all."""

  form: ClassVar[Form] = 'text'

  @abstractmethod
  def chosen(self, judged: Judged) -> np.ndarray:
    """Which answers are learnt, bool[B]."""

  def __call__(self, judged: Judged) -> dict[str, Array]:
    return {'mask': np.where(self.chosen(judged)[:, None], judged.mask_BT, 0.0).astype(np.float32)}


@dataclass(frozen=True)
class Best(Chosen):
  """The answer with the largest reward to each question; the first one on a tie."""

  compares: ClassVar[bool] = True

  def chosen(self, judged: Judged) -> np.ndarray:
    rewards_PG = np.asarray(shaped(judged)).reshape(-1, judged.group)
    return (np.arange(judged.group) == rewards_PG.argmax(1)[:, None]).reshape(-1)


@dataclass(frozen=True)
class Above(Chosen):
  """The answers whose reward is at least `least`."""

  least: float

  def chosen(self, judged: Judged) -> np.ndarray:
    return np.asarray(shaped(judged)) >= self.least


@dataclass(frozen=True)
class Everyone(Chosen):
  """All answers, such as those of a teacher: sequence-level distillation (Kim and Rush 2016)."""

  def chosen(self, judged: Judged) -> np.ndarray:
    return np.ones(len(judged.rewards_B), bool)
