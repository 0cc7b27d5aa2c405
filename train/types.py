"""The types that every kind of training shares: State, Loss, LossFn, GradFn, StepFn, Hook, Objective, Source, Feed.

Letters: B rows of a batch, L positions of a row.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import struct

from model.decoder import Model
from model.tokenizer import Tokenizer

if TYPE_CHECKING:
  from train.artifact import Store
  from train.build import Built
  from train.data.vocabulary import AnyVocabulary
  from train.run import Parent, Run

Params = Any                          # trainable leaves; None where a leaf is frozen
Frozen = Any                          # named trees that no gradient reaches: {'base': ..., 'teacher': ...}
Grads = Any                           # as Params
Batch = dict[str, jax.Array]          # every leaf leads with B
Key = jax.Array
Position = dict[str, Any]             # where a source stands: JSON values only


@struct.dataclass
class Mean:
  """A mean kept as its two halves, so that the parts of a batch add up exactly."""

  total: jax.Array                    # f32[]
  weight: jax.Array                   # f32[]

  def __add__(self, other: 'Mean') -> 'Mean':
    return Mean(self.total + other.total, self.weight + other.weight)

  def value(self) -> jax.Array:
    """The mean, f32[]; 0 where nothing was weighed, never NaN."""
    return jnp.where(self.weight > 0, self.total / jnp.maximum(self.weight, 1e-20), 0.0)

  @classmethod
  def of(cls, value, weight=1.0) -> 'Mean':
    """The mean of one value that counts `weight` times."""
    weight = jnp.asarray(weight, jnp.float32)
    return cls(jnp.asarray(value, jnp.float32) * weight, weight)


class Loss(NamedTuple):
  """What a LossFn returns: the objective, as a sum over rows and what to divide it by, and metrics to look at."""

  objective: Mean
  metrics: dict[str, Mean]


@struct.dataclass
class State:
  """Exactly what a checkpoint holds of the learner."""

  step: jax.Array                     # i32[]
  params: Params
  opt_state: optax.OptState           # moments, EMA, noise key: all that the chain remembers
  key: Key                            # never split; step i uses fold_in(key, i)


LossFn = Callable[[Params, Frozen, Batch, Key], Loss]
GradFn = Callable[[Params, Frozen, Batch, Key], tuple[Grads, Loss]]     # the gradient of objective.total
StepFn = Callable[[State, Frozen, Batch], tuple[State, dict[str, Mean]]]
Hook = Callable[[int, State, dict[str, Mean]], None]
Form = Literal['text', 'masked', 'marked', 'pairs', 'labels', 'rollouts', 'classes']     # what a row is


class Objective(ABC):
  """A config that makes the loss of a model: `NextToken(z_loss=1e-4)(model)` is a LossFn."""

  form: ClassVar[Form] = 'text'

  @abstractmethod
  def __call__(self, model: Model) -> LossFn: ...

  def check(self, run: 'Run') -> None:  # noqa: B027 (most suit any run)
    """Returns if the rest of the run suits it. Raises: ConfigError."""

  def beside(self) -> dict[str, 'Parent']:
    """The models that its loss reads but does not train, by their names in `Frozen` (any but 'base')."""
    return {}


class Source(Protocol):
  """Where batches come from. A dataset ignores the state; a rollout samples from it.

  Calling it gives the next batch as global arrays, already laid on the mesh. `save` gives the position after the last
  batch given; `load` goes there, so that the next call gives the batch that would have come next. `describe` says, for a
  person, where a row comes from, by its number counted from the first row of the first batch.
  """

  def __call__(self, state: State) -> Batch: ...
  def save(self) -> Position: ...
  def load(self, position: Position) -> None: ...
  def describe(self, record: int) -> str: ...
  def close(self) -> None: ...


class Setting(NamedTuple):
  """What a feed is given of the run that opens it. `built.mesh` is the current mesh meanwhile.

  `kept` caches what feeds load, such as other models, so that each is in memory once: see `once`.
  """

  run: 'Run'
  store: 'Store'
  built: 'Built'
  tokenizer: Tokenizer
  frozen: Frozen
  kept: dict[str, Any]

  def once(self, name: str, make: Callable[[], Any]) -> Any:
    """The result of `make()`, called the first time that this name is asked for."""
    if name not in self.kept:
      self.kept[name] = make()
    return self.kept[name]

  @property
  def devices(self) -> list[jax.Device]:
    """The devices of the mesh."""
    return list(self.built.mesh.devices.flat)


Evaluator = Callable[[Params], dict[str, float]]      # from the whole parameters to metrics by name


@runtime_checkable
class Feed(Protocol):
  """The config of a run's data: opened in a setting, it is a Source."""

  @property
  def form(self) -> Form: ...
  @property
  def vocabulary(self) -> 'AnyVocabulary': ...
  @property
  def length(self) -> int: ...            # tokens that a model reads at once

  @property
  def reads(self) -> int: ...             # tokens of a row, all its sides together

  def check(self, run: 'Run') -> None:
    """Returns when the rest of the run suits it. Raises: ConfigError."""

  def holds(self, run: 'Run', built: 'Built') -> dict[str, Any]:
    """The abstract arrays, by name, that its source keeps on the devices beside the state."""

  def open(self, setting: Setting) -> Source:
    """Its batches, from the first. Raises: UserErrors if what it reads has changed or is not made."""

  def evaluator(self, setting: Setting, rows: int) -> Evaluator:
    """Evaluates on `rows` held-out rows, always the same ones. Raises: DataError if nothing is held out."""
