"""Prompts as arrays: checked, padded to a rounded length, cut into lots that are read together, and handed to a batch.

Lengths are rounded up to powers of two, so that a few programs serve all prompts. What writes the answers, one id at a time
or several (model.generate, model.speculate), is a loop that was compiled; it is left only where rows that have ended make
room for prompts that wait, or for another size: more room in the cache, or fewer rows (model.membership).

Letters: N prompts, B rows of a lot, U prompts of it that differ, L positions; C rows of a batch, R of them that are read.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from model.cache import Cache, grow, resize
from model.config import Learned
from model.decoder import Model, check_length
from model.errors import ConfigError, DataError, demand
from model.membership import Answers, Told, alike, staying
from model.sharding import pin

SHORTEST = 16     # rounding ends here


class Lot(NamedTuple):
  """Prompts that are read together, and the rows that go on from them."""

  tokens_UL: np.ndarray               # i32, padded
  lengths_U: np.ndarray               # i32
  which_B: np.ndarray                 # i32: the prompt of each row, -1 where there is none
  number_B: np.ndarray                # i32: of each row among all
  key: jax.Array                      # one for all, or one for each row

  @property
  def length(self) -> int:
    return self.tokens_UL.shape[1]


class Asked(NamedTuple):
  """All prompts."""

  prompts: Sequence[Sequence[int]]
  tokens_NL: np.ndarray
  lengths_N: np.ndarray
  key: jax.Array                      # one for all, or one for each prompt

  def lot(self, number_B: np.ndarray) -> Lot:
    """The prompts of these numbers, -1 standing for none, with no more padding than the longest of them asks for."""
    there = number_B[number_B >= 0]
    first_U, which_B = alike([self.prompts[number] for number in there], len(number_B))
    lengths_U = self.lengths_N[there[first_U]]
    tokens_UL = self.tokens_NL[there[first_U], :round_up(int(lengths_U.max()))]
    return Lot(tokens_UL, lengths_U, which_B, number_B, self.key[number_B] if self.key.ndim else self.key)


class Batch(Protocol):
  """Rows that are written together: a tree of arrays that lead with them, but for scalars, with caches of as many slots."""

  @property
  def cache(self) -> Cache: ...


Rows = TypeVar('Rows', bound=Batch)


def answered(asked: Asked, answers: Answers, sizes: list[int], read: Callable[[Lot, int], Rows],
             run: Callable[[Rows, int], tuple[Rows, tuple[jax.Array, ...]]], spare: int = 0) -> Told:
  """What is written after all prompts.

  `read` makes rows of a lot, with so many slots. `run` goes on until no more rows than so many do, or one of them has filled
  its slots but for the spare ones, and gives what it tells of them (`everywhere`) beside them.
  """
  lot = asked.lot(answers.place_C)
  now = read(lot, above(sizes, lot.length - 1) + spare)
  while True:
    now, parts = run(now, answers.few)
    answers.note(told := Told(*jax.device_get(parts)))
    if not answers.waiting and not told.going_C.any():
      assert answers.told is not None
      return answers.told
    longest = int(told.filled_C[told.going_C].max(initial=0))
    if len(free_R := answers.free(told.going_C)):
      lot = asked.lot(answers.give(free_R))
      slots = above(sizes, max(longest, lot.length - 1)) + spare
      now = now if slots == now.cache.slots else _moved(now, np.arange(len(answers.place_C)), slots=slots)
      now = _placed(now, read(lot, lot.length), free_R)
    else:
      answers.keep(kept_C := staying(told.going_C))
      now = _moved(now, kept_C, slots=above(sizes, longest) + spare)


def everywhere(*told: jax.Array) -> tuple[jax.Array, ...]:
  """What is told of rows (model.membership.Told) on every device, so that each process of a job can read it."""
  return tuple(pin(x, *(None,) * x.ndim) for x in told)


def above(sizes: list[int], length: int) -> int:
  """The least of the sizes that has room for more than this."""
  return next(size for size in sizes if size > length)


@partial(jax.jit, static_argnames='slots')
def _moved(now: Rows, kept_C: jax.Array, slots: int) -> Rows:
  """These rows, with so much room in their caches."""
  return _changed(lambda cache: resize(cache, slots), jax.tree.map(lambda x: x[kept_C] if x.ndim else x, now))


@partial(jax.jit, donate_argnames='now')
def _placed(now: Rows, more: Rows, rows_R: jax.Array) -> Rows:
  """The batch with other rows in these places."""
  more = _changed(lambda cache: grow(cache, now.cache.slots), more)
  return jax.tree.map(lambda x, new: x.at[rows_R].set(new) if x.ndim else x, now, more)


def _changed(change: Callable[[Cache], Cache], now: Rows) -> Rows:
  """The same with other caches."""
  return jax.tree.map(lambda x: change(x) if isinstance(x, Cache) else x, now, is_leaf=lambda x: isinstance(x, Cache))


def round_up(length: int) -> int:
  """The next power of two, at least 16."""
  return max(SHORTEST, 1 << (length - 1).bit_length())


def rounded(model: Model, length: int) -> int:
  """The length rounded up, as far as the model has positions."""
  positions = model.config.positions
  return min(round_up(length), positions.length) if isinstance(positions, Learned) else round_up(length)


def asked_of(model: Model, prompts: Sequence[Sequence[int]], max_new: int, key: jax.Array) -> Asked:
  """Prompts in one array, padded to a rounded length. Raises: DataError and ConfigError as `model.generate.generate`."""
  for i, prompt in enumerate(prompts):
    if not len(prompt):                 # an array, too, is welcome
      raise DataError('generate.empty-prompt', f'prompt {i} has no tokens', 'the first token follows from at least one',
                      "begin it with the tokenizer's bos id")
    if not 0 <= min(prompt) <= max(prompt) < model.config.vocab:
      raise DataError('generate.unknown-id', f'prompt {i} has ids from {min(prompt)} to {max(prompt)}',
                      f'the model knows ids from 0 to {model.config.vocab - 1}',
                      'use the tokenizer that it was trained with')
  demand(len(prompts) > 0, 'prompts', prompts, 'there is nothing to go on from', 'give at least one')
  demand(max_new > 0, 'max_new', max_new, 'it is how many ids to write', 'give at least 1')
  demand(not key.ndim or len(key) == len(prompts), 'the number of keys', len(key) if key.ndim else 1,
         f'there are {len(prompts)} prompts', 'give one key for all, or one for each')
  lengths_B = np.array([len(prompt) for prompt in prompts], np.int32)
  _check_room(model, int(lengths_B.max()), max_new)
  tokens_BL = np.zeros((len(prompts), rounded(model, int(lengths_B.max()))), np.int32)
  for row, prompt in zip(tokens_BL, prompts):
    row[:len(prompt)] = prompt
  return Asked(prompts, tokens_BL, lengths_B, key)


def _check_room(model: Model, prompt: int, max_new: int) -> None:
  """Raises: ConfigError if prompt and answer have more positions than the model has vectors for."""
  try:
    check_length(model.config, prompt + max_new)
  except ConfigError as error:
    raise ConfigError(error.id, f'a prompt of {prompt} tokens and max_new = {max_new}',
                      f'they make {prompt + max_new} positions, and {error.why}',
                      'write fewer tokens, or shorten the prompt') from error
