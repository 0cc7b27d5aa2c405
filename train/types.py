"""The types that every kind of training passes through: five sockets and the state that a checkpoint holds.

Letters: B rows of a batch, L positions of a row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct

from model.decoder import Model

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
  """What a loss gives back: a sum over rows and what to divide it by, and what people want to see."""

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
Edit = Callable[[Params, Key], Params]


class Objective(Protocol):
  """What is wanted of a model: `NextToken(z_loss=1e-4)(model)` is a LossFn."""

  def __call__(self, model: Model) -> LossFn: ...


class Source(Protocol):
  """Where batches come from. A dataset ignores the state; a rollout samples from it.

  Calling it gives the next batch as global arrays, already laid on the mesh. `save` gives the position after the last
  batch given; `load` goes there, so that the next call gives the batch that would have come next.
  """

  def __call__(self, state: State) -> Batch: ...
  def save(self) -> Position: ...
  def load(self, position: Position) -> None: ...
