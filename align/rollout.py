"""Rollouts, the data of PPO, GRPO and their kin: the live policy's answers to questions, with rewards and credit.

    rows = Rollouts(questions=FromTask(Sums()), rewards=(Part('right', Verified(Sums())),), vocabulary=chat.rows.vocabulary)
    grpo = Run(restore=chat, rows=rows, objective=GRPO(), ...)

An iteration asks `asked` questions, samples `group` answers to each from the policy as it is, judges them, and is learnt from
`epochs` times, `batch` rows a step, shuffled anew each time. Sampling and learning use the same ids, the same temperature and
the same code for log-probs.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.constraint import Limit
from align.credit import Credit, Grouped
from align.critic import Critic
from align.kl import Controller, Fixed
from align.policy import GRPO, PPO
from align.questions import Asking
from align.rewards import Part
from model.adapt import LoRA
from model.chat import ChatML, Template
from model.decoder import own
from model.errors import ConfigError
from train.artifact import digest, how
from train.build import Built
from train.data.vocabulary import AnyVocabulary
from train.run import Parent, Run
from train.types import Evaluator, Form, Setting, Source


class Truncated(ABC):
  """How answers that ran into the token limit, and did not end by themselves, are treated."""

  @abstractmethod
  def __call__(self, rewards_B: np.ndarray, mask_BT: np.ndarray, cut_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and masks of all answers; bool `cut_B` says which ones ran into the limit."""


@dataclass(frozen=True)
class Kept(Truncated):
  """They are treated like the others."""

  def __call__(self, rewards_B: np.ndarray, mask_BT: np.ndarray, cut_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rewards_B, mask_BT


@dataclass(frozen=True)
class Charged(Truncated):
  """Their reward is lower by `price` (Huang et al. 2024)."""

  price: float = 1.0

  def __call__(self, rewards_B: np.ndarray, mask_BT: np.ndarray, cut_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(cut_B, rewards_B - np.float32(self.price), rewards_B), mask_BT


@dataclass(frozen=True)
class Ignored(Truncated):
  """Nothing is learnt from their tokens (overlong filtering, Yu et al. 2025); the others are still compared with them."""

  def __call__(self, rewards_B: np.ndarray, mask_BT: np.ndarray, cut_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rewards_B, np.where(cut_B[:, None], np.float32(0), mask_BT)


@dataclass(frozen=True, kw_only=True)
class Rollouts:
  """Rollouts as a `train.types.Feed`: what is asked, how answers are sampled and judged, and what is learnt of them.

  `kl` weighs the KL penalty that is taken off the reward (estimator k1); the reference is the run's parent. `importance` caps
  the weight p / q of tokens whose log-probs differ between sampling (q) and learning (p) (Yao et al. 2025). `refill`
  times, questions whose answers all got one reward, charged where that is chosen, give their places to new ones (dynamic
  sampling, Yu et al. 2025). `by` is who writes: a teacher, or the policy itself.
  """

  questions: Asking
  rewards: tuple[Part, ...]
  vocabulary: AnyVocabulary
  template: Template = ChatML()
  credit: Credit = Grouped()
  asked: int = 32
  group: int = 8
  prompt_tokens: int = 128             # longer ones are passed over
  answer_tokens: int = 128
  temperature: float = 1.0
  epochs: int = 1
  truncated: Truncated = Kept()
  kl: Controller = Fixed(0.0)
  limits: tuple[Limit, ...] = ()
  importance: float = 2.0
  refill: int = 0
  by: Parent | None = None
  seed: int = 0
  lot: int = how(64)                   # answers written at a time

  def __post_init__(self):
    counts = {name: getattr(self, name) for name in ('asked', 'group', 'prompt_tokens', 'answer_tokens', 'epochs', 'lot')}
    if min(counts.values()) < 1 or self.refill < 0 or not self.temperature > 0 or not self.importance > 0:
      said = ', '.join(f'{name} = {value}' for name, value in counts.items())
      raise ConfigError('config.out-of-range', f'{said}, refill = {self.refill}, temperature = {self.temperature}, '
                        f'importance = {self.importance}', 'counts are 1 or more, temperature and importance above 0',
                        'mend the one that is not')
    names = [part.name for part in self.rewards] + [limit.name for limit in self.limits]
    if not self.rewards or len(set(names)) < len(names):
      raise ConfigError('config.rewards', f'rewards and limits {", ".join(names)}', 'there is at least one reward, and each '
                        'has a name of its own', 'name them apart')
    if self.limits and self.form == 'text':
      raise ConfigError('config.limits', f'limits {names[len(self.rewards):]}, credit = {type(self.credit).__name__}',
                        'an answer that is learnt like a text has no advantage to take a cost from',
                        'use a credit for a policy, or a reward that is lower for costly answers')
    if self.credit.compares and self.group < 2:
      raise ConfigError('config.group', f'group = {self.group}, credit = {type(self.credit).__name__}',
                        'it compares the answers to a question', 'use a group of 2 or more')

  @property
  def form(self) -> Form:
    return self.credit.form

  @property
  def length(self) -> int:
    return self.prompt_tokens + self.answer_tokens - 1

  @property
  def reads(self) -> int:
    return self.length

  @property
  def answers(self) -> int:
    """How many answers, and rows, an iteration has."""
    return self.asked * self.group

  @property
  def critics(self) -> tuple[str, ...]:
    """The names of the critics whose values the credit needs."""
    return ('reward', *(limit.name for limit in self.limits)) if self.credit.critic else ()

  def referred(self, run: Run) -> bool:
    """Whether the reference's log-probs are needed."""
    return self.kl.beta > 0 or (isinstance(run.objective, GRPO) and run.objective.beta > 0)

  def check(self, run: Run) -> None:
    """Raises: ConfigError if batch, critics, temperature, reference or teacher do not fit the run."""
    if self.answers % run.batch:
      raise ConfigError('config.batch', f'batch = {run.batch}, {self.asked} x {self.group} answers an iteration',
                        'an iteration is a whole number of batches', f'use a batch that divides {self.answers}')
    there = [edit.of for edit in run.lineage_of_edits if isinstance(edit, Critic)]
    if missing := [of for of in self.critics if of not in there]:
      raise ConfigError('config.critic', f'credit = {type(self.credit).__name__}, edits = {run.edits}',
                        f'there is no critic of {", ".join(missing)}', f'put Critic({missing[0]!r}) last among the edits')
    if isinstance(run.objective, GRPO):
      self._check_policy(run.objective)
    if self.referred(run) and run.restore is None:
      raise ConfigError('config.no-reference', 'restore = None', 'the distance from a reference has a price, and the '
                        'reference is the parent', 'set restore, or kl to Fixed(0.0) and beta to 0')
    if self.by is not None and (self.form != 'text' or digest(self.by.vocabulary) != digest(self.vocabulary)):
      raise ConfigError('config.teacher', f'by = {self.by.name}, credit = {type(self.credit).__name__}', 'what another model '
                        'of the same vocabulary writes is learnt like a text', 'use Everyone(), Best() or Above(...)')

  def _check_policy(self, objective: GRPO) -> None:
    learning = objective.critics if isinstance(objective, PPO) else ()
    if set(self.critics) != set(learning):
      raise ConfigError('config.critics', f'objective = {type(objective).__name__} of critics {learning}, rollouts of '
                        f'{self.critics}', 'a critic that is asked must learn, and one that learns must be asked',
                        f'use PPO(critics={self.critics})' if self.critics else 'use GRPO, or credit=FromCritic()')
    if objective.temperature != self.temperature:
      raise ConfigError('config.temperature', f'objective at {objective.temperature}, rollouts at {self.temperature}',
                        'ratios and distances mean something at the temperature of sampling alone', 'use one for both')

  def holds(self, run: Run, built: Built) -> dict[str, Any]:
    """The abstract trees held in memory beside the state: rewards' models, and the reference unless it lies under adapters."""
    reference = {'the reference': own(built.abstract.params)} if self.keeps_reference(run) else {}
    parts = (*self.rewards, *(limit.part() for limit in self.limits))
    return reference | {f'the reward {part.name}': tree for part in parts if (tree := part.reward.holds(run))}

  def keeps_reference(self, run: Run) -> bool:
    """Whether the reference is held as a model of its own: it is not where the policy is adapters over it."""
    return self.referred(run) and not any(isinstance(edit, LoRA) for edit in run.edits)

  def open(self, setting: Setting) -> Source:
    from align.rollout_source import RolloutSource  # what only training needs
    return RolloutSource(self, setting)

  def evaluator(self, setting: Setting, rows: int) -> Evaluator:
    """The rewards, length and KL of sampled answers to `rows` held-out questions."""
    from align.rollout_evaluator import HeldoutAnswers
    return HeldoutAnswers(self, setting, rows)
