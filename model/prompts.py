"""Prompts as arrays: checked, padded to a rounded length, and cut into lots that are read together.

Lengths are rounded up to powers of two, so that a few programs serve all prompts.

Letters: N prompts, B rows of a lot, U prompts of it that differ, L positions.
"""

from typing import NamedTuple

import jax
import numpy as np

from model.config import Learned
from model.decoder import Model, check_length
from model.errors import DataError, demand
from model.membership import alike

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

  prompts: list[list[int]]
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


def round_up(length: int) -> int:
  """The next power of two, at least 16."""
  return max(SHORTEST, 1 << (length - 1).bit_length())


def rounded(model: Model, length: int) -> int:
  """The length rounded up, as far as the model has positions."""
  positions = model.config.positions
  return min(round_up(length), positions.length) if isinstance(positions, Learned) else round_up(length)


def prepared(model: Model, prompts: list[list[int]], max_new: int) -> tuple[np.ndarray, np.ndarray]:
  """Prompts in one array, padded to a rounded length, and their own lengths."""
  for i, prompt in enumerate(prompts):
    if not prompt:
      raise DataError('generate.empty-prompt', f'prompt {i} has no tokens', 'the first token follows from at least one',
                      "begin it with the tokenizer's bos id")
    if not 0 <= min(prompt) <= max(prompt) < model.config.vocab:
      raise DataError('generate.unknown-id', f'prompt {i} has ids from {min(prompt)} to {max(prompt)}',
                      f'the model knows ids from 0 to {model.config.vocab - 1}',
                      'use the tokenizer that it was trained with')
  demand(max_new > 0, 'max_new', max_new, 'it is how many ids to write', 'give at least 1')
  lengths_B = np.array([len(prompt) for prompt in prompts], np.int32)
  check_length(model.config, int(lengths_B.max()) + max_new)
  tokens_BL = np.zeros((len(prompts), rounded(model, int(lengths_B.max()))), np.int32)
  for row, prompt in zip(tokens_BL, prompts):
    row[:len(prompt)] = prompt
  return tokens_BL, lengths_B
