"""Latency: time to the first token and to each further one, after warm-up, by percentile.

Prompt length, answer length and the number of answers at a time are part of every row: a time alone says nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from model.decoder import Model
from model.errors import ConfigError
from model.generate import generate, stream
from model.sampling import Sampling
from train.types import Key, Params

NOTE = ('After warm-up; lengths in tokens; every answer runs to its full length. One at a time: streamed, the clock '
        'being read at each token. Several: one program writes them all; the first token is timed by itself, and the '
        'rest of the time is shared out among the further ones.')


@dataclass(frozen=True)
class Timing:
  """What is measured: every concurrency with every prompt length, `repeats` times."""

  prompt_tokens: tuple[int, ...] = (16, 128)
  new_tokens: int = 64
  concurrency: tuple[int, ...] = (1, 8)
  repeats: int = 16

  def __post_init__(self):
    if self.new_tokens < 2 or min(self.repeats, *self.prompt_tokens, *self.concurrency) < 1:
      raise ConfigError('config.out-of-range', str(self), 'these are counts, and a further token needs a second one',
                        'use 2 or more new_tokens, and 1 or more of everything else')


class Wait(NamedTuple):
  """Seconds of one request: to its first token, to each further one, and in all."""

  first: float
  further: list[float]
  whole: float


def measure(model: Model, params: Params, text: Sequence[int], *, timing: Timing, sampling: Sampling) -> list[dict[str, Any]]:
  """A row for each concurrency and prompt length; times in seconds, `tokens_per_s` of all answers together.

  Prompts are pieces of `text`, token ids, one behind another and around again.
  """
  rows = []
  for concurrency in timing.concurrency:
    for length in timing.prompt_tokens:
      waits = [_wait(model, params, _prompts(text, concurrency, length, turn), timing.new_tokens, sampling,
                     jax.random.fold_in(jax.random.key(0), turn)) for turn in range(timing.repeats + 1)]
      rows.append({'concurrency': concurrency, 'prompt_tokens': length, 'new_tokens': timing.new_tokens}
                  | summary(waits[1:], concurrency * timing.new_tokens))              # the first one compiles
  return rows


def summary(waits: Sequence[Wait], tokens: int) -> dict[str, Any]:
  """Percentiles of requests that wrote `tokens` tokens each."""
  further = [seconds for wait in waits for seconds in wait.further]
  return {'requests': len(waits), **percentiles('first_token', [wait.first for wait in waits]),
          **percentiles('next_token', further), 'tokens_per_s': tokens * len(waits) / sum(wait.whole for wait in waits)}


def percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
  """`{name_p50, name_p95, name_p99}`: between two measurements a percentile lies on the line between them."""
  return {f'{name}_p{share}': float(np.percentile(seconds, share)) for share in (50, 95, 99)}


def _prompts(text: Sequence[int], count: int, length: int, turn: int) -> list[list[int]]:
  """The `turn`-th lot of `count` prompts of `length` tokens."""
  places = np.arange(count * length).reshape(count, length) + turn * count * length
  return np.asarray(text)[places % len(text)].tolist()


def _wait(model: Model, params: Params, prompts: list[list[int]], new: int, sampling: Sampling, key: Key) -> Wait:
  if len(prompts) == 1:
    return streamed(model, params, prompts[0], new, sampling, key)
  return together(model, params, prompts, new, sampling, key)


def streamed(model: Model, params: Params, prompt: list[int], new: int, sampling: Sampling, key: Key) -> Wait:
  """The wait for each token of one answer."""
  times = [time.perf_counter()]
  for _ in stream(model, params, prompt, max_new=new, sampling=sampling, key=key):
    times.append(time.perf_counter())
  first, *further = np.diff(times).tolist()
  return Wait(first, further, times[-1] - times[0])


def together(model: Model, params: Params, prompts: list[list[int]], new: int, sampling: Sampling, key: Key) -> Wait:
  """The wait for several answers that one program writes; `further` is the mean of this request alone."""

  def seconds(count: int) -> float:
    begin = time.perf_counter()
    generate(model, params, prompts, max_new=count, sampling=sampling, key=key)      # gives host arrays: it has waited
    return time.perf_counter() - begin

  first, whole = seconds(1), seconds(new)
  return Wait(first, [(whole - first) / (new - 1)], whole)
