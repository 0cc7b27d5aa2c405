"""How a gradient becomes an update: one optax chain, written down as a value.

clip the global norm -> the rule (AdamW, Muon, Lion) -> decoupled weight decay by kind of parameter -> rates per parameter
-> rates by depth -> the schedule -> nothing at all where the gradient is not finite -> a moving average of the result.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from model.errors import ConfigError
from train.canonical import added
from train.depth import ByDepth
from train.schedule import Cosine, Factor, Schedule

NEVER = 2**31 - 1


class Parts(NamedTuple):
  """What the optimizer must know of each parameter; every field is a tree shaped like the parameters."""

  kinds: Any         # 'matrix' | 'embedding' | 'head' | 'vector'
  matrices: Any      # optax.contrib.MuonDimensionNumbers of a matrix, None of any other kind
  rates: Any         # float: multiplier of the learning rate (muP)


def _positive(rule, *names: str) -> None:
  for field in fields(rule):
    value = getattr(rule, field.name)
    if isinstance(value, float) and (value < 0 or (field.name in names and value == 0)):
      raise ConfigError('config.out-of-range', f'{field.name} = {value}', f'{type(rule).__name__} wants a positive number',
                        f'give {field.name} a number above 0')


@dataclass(frozen=True)
class AdamW:
  """Adam with decoupled weight decay (Loshchilov & Hutter 2019), moments in float32."""

  lr: float = 1e-3
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  weight_decay: float = 0.1
  decayed: tuple[str, ...] = ('matrix', 'head')

  def __post_init__(self):
    _positive(self, 'lr', 'eps')

  def __call__(self, parts: Parts) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=jnp.float32),
                       _decay(self.weight_decay, self.decayed, parts), optax.scale(-self.lr))


@dataclass(frozen=True)
class Lion:
  """The sign of an interpolated momentum (Chen et al. 2023)."""

  lr: float = 1e-4
  b1: float = 0.9
  b2: float = 0.99
  weight_decay: float = 1.0
  decayed: tuple[str, ...] = ('matrix', 'head')

  def __post_init__(self):
    _positive(self, 'lr')

  def __call__(self, parts: Parts) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_lion(self.b1, self.b2, mu_dtype=jnp.float32),
                       _decay(self.weight_decay, self.decayed, parts), optax.scale(-self.lr))


@dataclass(frozen=True)
class Muon:
  """Orthogonalised momentum for the hidden matrices (Jordan et al. 2024), AdamW for everything else.

  An update's root mean square is made `0.2` whatever the matrix's shape, so that Adam's rates carry over (Liu et al. 2025,
  eq. 4): `lr` is then of the size that AdamW would use.
  """

  lr: float = 2e-3
  beta: float = 0.95
  rounds: int = 5
  weight_decay: float = 0.1
  others: AdamW = AdamW()

  def __post_init__(self):
    _positive(self, 'lr')

  def __call__(self, parts: Parts) -> optax.GradientTransformation:
    dims = _dimensions(parts)
    matrices = optax.chain(
        contrib.scale_by_muon(ns_steps=self.rounds, beta=self.beta, weight_dimension_numbers=lambda _: dims),
        optax.stateless(lambda updates, params: jax.tree.map(_even, updates, dims)),
        optax.add_decayed_weights(self.weight_decay), optax.scale(-self.lr))
    labels = jax.tree.map(lambda kind: 'matrix' if kind == 'matrix' else 'other', parts.kinds)
    return optax.partition({'matrix': matrices, 'other': self.others(parts)}, labels)


def _even(update: jax.Array, dims: contrib.MuonDimensionNumbers) -> jax.Array:
  """An orthogonalised m x n matrix has a root mean square of 1/sqrt(max(m, n)); here it gets 0.2."""
  size = max(math.prod(update.shape[axis] for axis in axes) for axes in dims)
  return update * 0.2 * math.sqrt(size)


def _dimensions(parts: Parts):
  """The dimension numbers in the form that `optax.partition` shows a member: a MaskedNode for leaves not its own.

  What does not learn is None, in both trees.
  """
  return jax.tree.map(lambda kind, dims: None if kind is None else optax.MaskedNode() if dims is None else dims, parts.kinds,
                      parts.matrices, is_leaf=lambda leaf: leaf is None)


def _decay(rate: float, kinds: tuple[str, ...], parts: Parts) -> optax.GradientTransformation:
  """Adds `rate * parameter` where its kind is named. The mask is a function: a partition hides leaves of other members."""
  decayed = jax.tree.map(lambda kind: kind in kinds, parts.kinds)

  def mask(params):
    return jax.tree.map(lambda leaf, yes: leaf if _hidden(leaf) else yes, params, decayed, is_leaf=_hidden)

  return optax.add_decayed_weights(rate, mask)


def _hidden(leaf) -> bool:
  return isinstance(leaf, optax.MaskedNode)


@dataclass(frozen=True)
class Optimizer:
  """The whole chain. `ema` is the decay of a moving average of the parameters, kept beside them; 0 keeps none.

  `depth` makes rates differ from layer to layer. All that the chain remembers is float32. Parameters in bfloat16 are rounded
  after each step all the same, and so stay where they are under updates below a 512th of them.
  """

  rule: AdamW | Muon | Lion = AdamW()
  schedule: Schedule = Cosine()
  clip: float = 1.0
  ema: float = 0.0
  depth: ByDepth | None = added(None)

  def __post_init__(self):
    if not self.clip > 0 or not 0 <= self.ema < 1:
      raise ConfigError('config.out-of-range', f'clip = {self.clip}, ema = {self.ema}',
                        'a clip is a positive norm and a moving average has a decay from 0 to below 1',
                        'clip = 1.0 and ema = 0.999 are usual; a very large clip clips nothing')

  def __call__(self, steps: int, parts: Parts) -> optax.GradientTransformation:
    """The chain for a run of `steps` steps. Updates are zero where any gradient is not finite, and that is counted."""
    factor: Factor = self.schedule(steps)
    depth = () if self.depth is None else (self.depth(),)
    chain = optax.chain(optax.clip_by_global_norm(self.clip), self.rule(parts), _rates(parts.rates), *depth,
                        optax.scale_by_schedule(factor))
    finite = optax.apply_if_finite(chain, max_consecutive_errors=NEVER)
    return in_float32(optax.chain(finite, average(self.ema)) if self.ema else finite)


def in_float32(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
  """The chain as if parameters and gradients were float32: its state is, and so are the updates.

  In bfloat16 a second moment or an average to which each step adds a hundredth or less would not move at all.
  """
  tx = optax.with_extra_args_support(tx)

  def init(params):
    return tx.init(_float32(params))

  def update(updates, state, params=None, **extra):
    return tx.update(_float32(updates), state, _float32(params), **extra)

  return optax.GradientTransformationExtraArgs(init, update)


def _float32(tree):
  return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


def _rates(rates) -> optax.GradientTransformation:
  return optax.stateless(lambda updates, params: jax.tree.map(jnp.multiply, updates, rates))


class Average(NamedTuple):
  """The state of `average`: a tree shaped like the parameters, in the dtypes that it is shown of them."""

  ema: Any


def average(decay: float) -> optax.GradientTransformation:
  """A link that passes updates through and keeps `ema <- decay * ema + (1 - decay) * new parameters`."""

  def init(params):
    return Average(jax.tree.map(jnp.array, params))

  def update(updates, state, params):
    fresh = optax.apply_updates(params, updates)
    return updates, Average(optax.incremental_update(fresh, state.ema, 1 - decay))

  return optax.GradientTransformation(init, update)


def averaged(opt_state: optax.OptState) -> Any | None:
  """The moving average that a chain keeps, or None where it keeps none."""
  found = [leaf for leaf in jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, Average)) if isinstance(leaf, Average)]
  return found[0].ema if found else None


def skipped(opt_state: optax.OptState) -> jax.Array:
  """How many steps in a row, up to now, were skipped because a gradient was not finite: i32[]."""
  return optax.tree_utils.tree_get(opt_state, 'notfinite_count')
