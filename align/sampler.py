"""Sampling answers from a model, and scoring them with models: the two halves of a rollout, without rewards.

Rows have room for the longest prompt and the longest answer: tokens i32[B, T], segments i32[B, T] (1 on what is there) and
mask f32[B, T] (1 on what was sampled). Whatever belongs to a token (a log-prob, a value before it was chosen) lies at its
own place in [B, T]; `train.objectives.shift` is what moves it under the position that foretold it.

Letters: B rows, T = L + 1 positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from align.critic import values
from align.questions import Question, Questions
from align.rewards import Answer
from model.chat import Template, ends, prompt, reply
from model.decoder import Model, own
from model.errors import DataError
from model.generate import generate, lay_out
from model.sampling import Sampling
from model.sharding import pin
from model.tokenizer import Tokenizer
from train.data.pipeline import Placement
from train.objectives import shift
from train.types import Batch, Params

Columns = dict[str, np.ndarray]

LONGEST_SEARCH = 10_000      # questions in a row that may be too long


@dataclass(frozen=True)
class Writer:
  """Samples answers, `rows` at a time (which changes memory alone); equal prompts that follow one another are read once."""

  model: Model
  tokenizer: Tokenizer
  template: Template
  answer_tokens: int
  temperature: float
  rows: int

  def prompt(self, question: Question) -> list[int]:
    """The ids of a question up to where the answer begins."""
    return prompt(self.template, self.tokenizer, question.messages)

  def __call__(self, params: Params, questions: Sequence[Question], keys: jax.Array) -> tuple[list[Answer], list[np.ndarray]]:
    """An answer to each question, sampled with a key of its own, and f32 log-probs of its ids as the sampler had them."""
    ending, prompts = ends(self.template, self.tokenizer), [self.prompt(question) for question in questions]
    made = generate(self.model, lay_out(self.model, own(params)), prompts, max_new=self.answer_tokens,
                    sampling=Sampling(self.temperature), key=keys, eos=ending.eos, stop=ending.stop, limit=self.tokenizer.size,
                    at_once=self.rows)
    said = [reply(self.template, self.tokenizer, ids.tolist()).content for ids in made.tokens]
    answers = [Answer(question, np.array(before, np.int32), ids, text, reason) for question, before, ids, text, reason
               in zip(questions, prompts, made.tokens, said, made.reasons)]
    return answers, made.logps


def short_enough(questions: Questions, writer: Writer, tokens: int, first: int) -> Iterator[tuple[int, Question]]:
  """The questions from number `first` on whose prompts have at most `tokens` tokens, with their numbers, without end.

  Raises: DataError `rollout.long-prompts` if 10,000 in a row are longer.
  """
  passed = 0
  while passed < LONGEST_SEARCH:
    question = questions(first)
    fits = len(writer.prompt(question)) <= tokens
    passed = 0 if fits else passed + 1
    if fits:
      yield first, question
    first += 1
  raise DataError('rollout.long-prompts', f'prompt_tokens = {tokens}', f'the prompts of {LONGEST_SEARCH:,} questions in a row '
                  'are longer', 'raise prompt_tokens')


def keys(seed: int, numbers: Sequence[int], group: int) -> jax.Array:
  """A key for each of `group` answers to each question, by the question's number: [len(numbers) * group]."""
  def one(number, place):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), place)

  pairs = np.array([(number % 2**31, place) for number in numbers for place in range(group)], np.uint32)
  return jax.vmap(one)(pairs[:, 0], pairs[:, 1])


def laid(answers: Sequence[Answer], length: int) -> Columns:
  """Prompts and answers as rows of `length` tokens, the columns tokens, segments and mask; none may be longer."""
  tokens, segments, mask = (np.zeros((len(answers), length), kind) for kind in (np.int32, np.int32, np.float32))
  for row, answer in enumerate(answers):
    begin, end = len(answer.prompt), len(answer.prompt) + len(answer.ids)
    tokens[row, :begin], tokens[row, begin:end] = answer.prompt, answer.ids
    segments[row, :end], mask[row, begin:end] = 1, 1
  return {'tokens': tokens, 'segments': segments, 'mask': mask}


def along(each: Sequence[np.ndarray], answers: Sequence[Answer], length: int) -> np.ndarray:
  """One number per sampled id, laid at the id's place in its row: f32[B, length], 0 elsewhere."""
  row_BT = np.zeros((len(answers), length), np.float32)
  for row, answer, numbers in zip(row_BT, answers, each):
    row[len(answer.prompt):len(answer.prompt) + len(numbers)] = numbers
  return row_BT


def at_tokens(x_BL: jax.Array, weights_BL: jax.Array) -> jax.Array:
  """What a model says at position t about the token at t + 1, moved to t + 1: [B, L + 1], 0 where the weight is 0."""
  return jnp.pad(jnp.where(weights_BL > 0, x_BL, 0.0), ((0, 0), (1, 0)))


class Read(NamedTuple):
  """Log-probs of tokens and critics' values before them, f32[B, T] at the tokens' places."""

  logp: np.ndarray
  values: dict[str, np.ndarray]


class Reader:
  """Scores rows with the very code of the training step, a batch at a time; log-probs are at the temperature of sampling."""

  def __init__(self, model: Model, temperature: float, placement: Placement):
    self.placement = placement

    def logps(params: Params, batch: Batch) -> jax.Array:
      row = shift(batch)
      hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
      return at_tokens(model.logp(params, hidden.x_BLD, row.targets_BL, temperature), row.weights_BL)

    def read(params: Params, batch: Batch, critics: tuple[str, ...]) -> tuple[jax.Array, dict[str, jax.Array]]:
      row = shift(batch)
      foretold = {of: at_tokens(values(model, params, of, row.inputs_BL, row.segments_BL), row.weights_BL) for of in critics}
      return pin(logps(params, batch), None, None), {of: pin(x_BT, None, None) for of, x_BT in foretold.items()}

    self.read = jax.jit(read, static_argnames='critics')

  def __call__(self, params: Params, columns: Columns, critics: tuple[str, ...] = ()) -> Read:
    parts = [jax.device_get(self.read(params, batch, critics)) for batch in placed(columns, self.placement)]
    count = len(columns['tokens'])
    return Read(np.concatenate([logp for logp, _ in parts])[:count],
                {of: np.concatenate([found[of] for _, found in parts])[:count] for of in critics})


def placed(columns: Columns, placement: Placement) -> Iterator[Batch]:
  """All rows in batches on the devices; the last batch is filled up with rows of zeros."""
  size = placement.batch
  for begin in range(0, len(columns['tokens']), size):
    lot = {name: column[begin:begin + size] for name, column in columns.items()}
    yield placement({name: _filled(column, size)[placement.rows] for name, column in lot.items()})


def _filled(column: np.ndarray, size: int) -> np.ndarray:
  return np.pad(column, [(0, size - len(column))] + [(0, 0)] * (column.ndim - 1))
