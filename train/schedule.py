"""Learning-rate schedules as shapes: a factor between 0 and 1 for every step, which the peak rates are multiplied with.

Warm-up counts steps of the optimizer (never micro-batches), starts above zero at step 0 and reaches 1 at step `warmup`. The
decay begins there or later and ends exactly on the last step of the run; where that is the first warm step, it has the peak.
A run that ends before it is warm is refused before it begins (`warms_up`).

A factor is traced with the step's program, and taken from numpy where the step is a plain number: who only writes the rate
down neither compiles nor waits for the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from model.errors import ConfigError

Step = jax.Array | np.ndarray | int
Factor = Callable[[Step], jax.Array | np.ndarray | float]  # step i32[] -> f32[]


def _check(schedule, **fractions: float) -> None:
  for name, value in fractions.items():
    if not 0 <= value <= 1:
      raise ConfigError('config.out-of-range', f'{name} = {value}', f'{type(schedule).__name__} wants a share between 0 and 1',
                        'give a number from 0 to 1')
  if schedule.warmup < 0:
    raise ConfigError('config.out-of-range', f'warmup = {schedule.warmup}', 'a number of steps cannot be negative',
                      'give 0 or more steps')


def _library(step: Step) -> ModuleType:
  return jnp if isinstance(step, jax.Array) else np


def _warm(step: Step, warmup: int) -> jax.Array | float:
  return _library(step).minimum(1.0, (step + 1) / (warmup + 1))


def _progress(step: Step, begin: float, end: float) -> jax.Array | float:
  return _library(step).clip((step - begin) / (end - begin), 0.0, 1.0) if begin < end else 0.0


@dataclass(frozen=True)
class Constant:
  """Warm-up, then 1."""

  warmup: int = 0

  def __post_init__(self):
    _check(self)

  def __call__(self, steps: int) -> Factor:
    return lambda step: _warm(step, self.warmup)


@dataclass(frozen=True)
class Cosine:
  """Warm-up, then half a cosine down to `floor` (Loshchilov & Hutter 2017, without restarts)."""

  warmup: int = 0
  floor: float = 0.1

  def __post_init__(self):
    _check(self, floor=self.floor)

  def __call__(self, steps: int) -> Factor:
    def factor(step):
      wave = 0.5 * (1 + _library(step).cos(np.pi * _progress(step, self.warmup, steps - 1)))
      return _warm(step, self.warmup) * (self.floor + (1 - self.floor) * wave)

    return factor


@dataclass(frozen=True)
class Linear:
  """Warm-up, then a straight line down to `floor`."""

  warmup: int = 0
  floor: float = 0.0

  def __post_init__(self):
    _check(self, floor=self.floor)

  def __call__(self, steps: int) -> Factor:
    def factor(step):
      return _warm(step, self.warmup) * (1 - (1 - self.floor) * _progress(step, self.warmup, steps - 1))

    return factor


@dataclass(frozen=True)
class WSD:
  """Warm-up, stable at 1, then a straight decay to `floor` over the last `decay` share of the run (Hu et al. 2024).

  A share of less than one step is the last step; 0 is no decay.
  """

  warmup: int = 0
  decay: float = 0.2
  floor: float = 0.0

  def __post_init__(self):
    _check(self, decay=self.decay, floor=self.floor)

  def __call__(self, steps: int) -> Factor:
    length = max(self.decay * steps, 1) if self.decay else 0
    begin = max(self.warmup, steps - 1 - length)

    def factor(step):
      fall = _progress(step, begin, steps - 1)
      return _warm(step, self.warmup) * (1 - (1 - self.floor) * fall)

    return factor


Schedule = Constant | Cosine | Linear | WSD


def warms_up(schedule: Schedule, steps: int, where: str) -> None:
  """Returns where a run of `steps` steps comes to its peak rates. `where` is its name, for the message.

  No schedule asks for this when it is built: a run of which this is not so, and that is done, can still be opened.
  Raises: ConfigError.
  """
  if schedule.warmup >= steps:
    highest = float(np.max(schedule(steps)(np.arange(steps))))
    raise ConfigError('config.warmup', f'{where}: optimizer.schedule.warmup = {schedule.warmup}, steps = {steps}',
                      f'it ends before it is warm: no step has more than {highest:.0%} of the rates that are set',
                      f'give a warm-up below {steps} (a tenth of the run is {steps // 10}), or more steps')
