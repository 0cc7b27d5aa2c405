"""Distillation: a student learns the probabilities that a teacher gives to all tokens, not only the token that was written.

    Run(restore=..., objective=Distil(teacher), ...)                              the teacher is in memory beside the student
    Run(restore=..., objective=Distil(Stored()), rows=TaughtRows(logits), ...)    it was asked once (`train.stored_logits`)

Rows and masks are those of `NextToken`. The teacher reads what the student reads, without dropout, and gets no gradient. On
held-out rows the loss is that of `NextToken`, so that a student can be compared with any other run.

Letters: B rows, L positions, D width of the student, E of the teacher.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from kernels.divergence import Side, TaughtSums, taught, taught_by_stored
from model.config import Decoder
from model.decoder import Hidden, Model, build, check_length, head
from model.errors import ConfigError
from model.sharding import apart, pin
from train.artifact import digest
from train.data.vocabulary import AnyVocabulary
from train.hints import HiddenMap, Hints, far
from train.objectives import Shifted, judged, shift
from train.run import Parent
from train.types import Batch, Frozen, Key, Loss, LossFn, Mean, Objective, Params

if TYPE_CHECKING:
  from train.run import Run

TEACHER = 'teacher'
IDS, LOGPS = 'teacher_ids', 'teacher_logps'


class Divergence(ABC):
  """How far a student's q is from its teacher's p; `beta` is its parameter in the generalised JSD (Agarwal et al. 2023)."""

  @property
  @abstractmethod
  def beta(self) -> float: ...


@dataclass(frozen=True)
class Forward(Divergence):
  """KL(p || q): the student covers all that the teacher finds possible (Hinton et al. 2015)."""

  @property
  def beta(self) -> float:
    return 0.0


@dataclass(frozen=True)
class Reverse(Divergence):
  """KL(q || p): the student keeps to what the teacher finds likely (Gu et al. 2023)."""

  @property
  def beta(self) -> float:
    return 1.0


@dataclass(frozen=True)
class JSD(Divergence):
  """`share` KL(p || m) + (1 - share) KL(q || m), m = share p + (1 - share) q: at 1/2 the Jensen-Shannon divergence."""

  share: float = 0.5

  def __post_init__(self):
    if not 0 < self.share < 1:
      raise ConfigError('config.out-of-range', f'JSD.share = {self.share}', 'it mixes two distributions',
                        'use Forward() for 0, Reverse() for 1, or a number between')

  @property
  def beta(self) -> float:
    return self.share


@dataclass(frozen=True)
class Stored:
  """A teacher whose likeliest ids and their log-probs were stored, as columns of the rows: see `train.stored_logits`."""


class Taught(ABC):
  """Rows that carry the columns of a stored teacher."""

  @property
  @abstractmethod
  def temperature(self) -> float:
    """The temperature of the stored log-probs."""


@dataclass(frozen=True)
class Distil(Objective):
  """(1 - hard) T^2 D(teacher at T, student at T) + hard * cross-entropy of the next token at 1, and hints, over scored tokens.

  Hinton et al. 2015; D at temperature T is as `kernels.divergence` has it.
  """

  teacher: Parent | Stored
  divergence: Forward | Reverse | JSD = Forward()
  temperature: float = 1.0
  hard: float = 0.0
  hidden: Hints | None = None

  def __post_init__(self):
    if not self.temperature > 0 or not 0 <= self.hard <= 1:
      raise ConfigError('config.out-of-range', f'temperature = {self.temperature}, hard = {self.hard}',
                        'a temperature is above 0, and hard is a share of the loss', 'for example temperature=2.0, hard=0.5')

  def beside(self) -> dict[str, Parent]:
    return {} if isinstance(self.teacher, Stored) else {TEACHER: self.teacher}

  def check(self, run: 'Run') -> None:
    """Raises: ConfigError where teacher and student do not read the same ids in the same way, or hints have no map."""
    if not run.model.causal:
      raise ConfigError('distil.encoder', 'objective = Distil, model.causal = False', 'a student foretells the next token',
                        'set model.causal to True')
    if isinstance(self.teacher, Stored):
      self._check_stored(run)
    else:
      check_teacher(self.teacher, run.vocabulary, run.rows.length)
      check_head(self.teacher.model, run.model)
      self._check_map(run, self.teacher.model)

  def _check_stored(self, run: 'Run') -> None:
    if not isinstance(run.rows, Taught):
      raise ConfigError('distil.not-stored', f'teacher = Stored(), rows = {type(run.rows).__name__}',
                        'these rows do not say what a teacher made of them', 'use TaughtRows, or name the teacher itself')
    if run.rows.temperature != self.temperature:
      raise ConfigError('distil.temperature', f'objective at {self.temperature}, log-probs stored at {run.rows.temperature}',
                        'what lies outside of them is another share at another temperature', 'use one for both')
    if self.hidden is not None:
      raise ConfigError('distil.no-hidden', f'teacher = Stored(), hidden = {self.hidden}', 'its hidden states are not stored',
                        'set hidden to None, or name the teacher itself')

  def _check_map(self, run: 'Run', teacher: Decoder) -> None:
    widths = [edit.width for edit in run.lineage_of_edits if isinstance(edit, HiddenMap)]
    if self.hidden is not None and widths != [teacher.width]:
      raise ConfigError('distil.hidden-map', f'hidden = {self.hidden}, edits = {run.lineage_of_edits}',
                        f'hidden states are compared through a learned map to the {teacher.width} numbers of the teacher',
                        f'put HiddenMap({teacher.width}) last among the edits')
    if self.hidden is None and widths:
      raise ConfigError('distil.hidden-map', f'hidden = None, edits = {run.lineage_of_edits}', 'a map that no loss reads '
                        'learns nothing', 'set hidden to Hints(), or leave the map out')

  def __call__(self, model: Model) -> LossFn:
    teacher = None if isinstance(self.teacher, Stored) else build(self.teacher.model)

    def loss(params: Params, frozen: Frozen, batch: Batch, key: Key) -> Loss:
      row = shift(batch)
      hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
      if teacher is None and IDS in batch:
        return self._judged(self._of_columns(model.config, params, hidden, batch, row), row, hidden, None)
      if teacher is None or TEACHER not in frozen:         # held-out rows: nobody teaches
        return judged(model, params, hidden, row.targets_BL, row.weights_BL, 0.0)
      others = jax.lax.stop_gradient(frozen[TEACHER])
      theirs_BLE = teacher.hidden(others, row.inputs_BL, row.segments_BL).x_BLD
      (ours, theirs, targets, weights), groups = apart(hidden.x_BLD, theirs_BLE, row.targets_BL, row.weights_BL)
      sums = taught(side(model.config, params, ours, groups), side(teacher.config, others, theirs, groups), targets, weights,
                    **self._how())
      hint = None if self.hidden is None else far(self.hidden, params, hidden.x_BLD, theirs_BLE, row.weights_BL)
      return self._judged(sums, row, hidden, hint)

    return loss

  def _how(self) -> dict[str, float]:
    return {'beta': self.divergence.beta, 'temperature': self.temperature, 'hard': self.hard}

  def _of_columns(self, config: Decoder, params: Params, hidden: Hidden, batch: Batch, row: Shifted) -> TaughtSums:
    (x, ids, logps, targets, weights), groups = apart(
      hidden.x_BLD, batch[IDS][:, :-1].astype(jnp.int32), batch[LOGPS][:, :-1], row.targets_BL, row.weights_BL)
    return taught_by_stored(side(config, params, x, groups), ids, logps, targets, weights, **self._how())

  def _judged(self, sums: TaughtSums, row: Shifted, hidden: Hidden, hint: jax.Array | None) -> Loss:
    """The loss of the sums, with hints and the router's penalties, all weighed by scored tokens."""
    tokens_B = row.weights_BL.sum(-1)
    tokens = tokens_B.sum()
    extra = {name: Mean((penalty_B * tokens_B).sum(), tokens) for name, penalty_B in hidden.aux.items()}
    total = sums.loss + sum(mean.total for mean in extra.values())
    if hint is not None and self.hidden is not None:
      total, extra = total + self.hidden.weight * hint, extra | {'hint': Mean(hint, tokens)}
    metrics = {'divergence': Mean(sums.divergence, tokens), 'nll': Mean(sums.nll, tokens),
               'accuracy': Mean(sums.correct, tokens), 'agreement': Mean(sums.agree, tokens)}
    return Loss(Mean(total, tokens), metrics | extra)


def side(config: Decoder, params: Params, x_BLD: jax.Array, groups: int) -> Side:
  """The operands of a model's last matmul for these hidden states, whose rows are cut over `groups` devices."""
  x_BLD, w_DV = head(config, params, x_BLD)
  return Side(x_BLD, pin(w_DV, None, 'vocab'), config.softcap, jnp.dtype(config.compute_dtype), groups)


def check_teacher(teacher: Parent, vocabulary: AnyVocabulary, length: int) -> None:
  """Returns if the model can teach in this vocabulary, on rows of `length` tokens. Raises: ConfigError."""
  if digest(teacher.vocabulary) != digest(vocabulary):
    raise ConfigError('distil.other-vocabulary', f'teacher = {teacher.name}, rows of {vocabulary.name}',
                      f'the teacher knows the ids of {teacher.vocabulary.name}: the same id is another piece of text',
                      'use rows in its vocabulary, or a teacher of this one')
  if not teacher.model.causal:
    raise ConfigError('distil.encoder', f'teacher = {teacher.name}', 'it reads both ways, and would see the token that it '
                      'foretells', 'use a teacher whose model.causal is True')
  check_length(teacher.model, length)


def check_head(teacher: Decoder, student: Decoder) -> None:
  """Returns if both have vocabularies of the same size. Raises: ConfigError."""
  if teacher.vocab != student.vocab:
    raise ConfigError('distil.other-head', f'model.vocab = {student.vocab}', f'the teacher tells {teacher.vocab} ids apart',
                      f'set model.vocab to {teacher.vocab}')
