"""Judges: models that write answers, critiques and revisions, and say how likely they find each of a few options.

    ByRun(run, template)             a model that was trained here
    Endpoint(url, model)             a server that speaks OpenAI's protocol (`align.endpoint`)

A judge is a value; opening it loads the model or connects to the server. What is written depends on the conversation and its
seed alone, as far as a judge can promise that.

Letters: N conversations, O options, R = N O rows, L positions.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from align.answer_logps import answer_logps
from align.batch_means import in_batches
from align.conversations import Messages
from align.questions import Question
from align.sampler import Writer
from model.chat import ChatML, Message, Template, ends, prompt, render
from model.decoder import check_length
from model.errors import ConfigError, DataError
from model.generate import round_up
from train.artifact import Store, how
from train.data.visits import Row
from train.run import Parent
from train.trained import load


class Said(NamedTuple):
  """What was written, and whether the token limit cut it off."""

  text: str
  cut: bool


class Opened(Protocol):
  """An open judge."""

  def write(self, talks: Sequence[Messages], seeds: Sequence[int]) -> list[Said]:
    """What the assistant says next in each conversation, sampled with a seed of its own, 0 to 2^32 - 1."""
    ...

  def weigh(self, talks: Sequence[Messages], options: Sequence[str]) -> np.ndarray:
    """Log-probs of the options as the assistant's next message, f64[N, O], nats, normalised over the options.

    NaN for a conversation that is too long to be read.
    """
    ...


class Judge(ABC):
  """A judge as a value."""

  @abstractmethod
  def open(self, store: Store) -> Opened:
    """The judge, ready to be asked. Raises: ConfigError or DataError if it is not there, or lacks what it needs."""


@dataclass(frozen=True)
class ByRun(Judge):
  """A trained run as a judge, asked in the template that it was trained with; it writes at most `tokens` tokens.

  A conversation of more than `prompt_tokens` gets an empty answer that counts as cut off.
  """

  run: Parent
  template: Template = ChatML()
  tokens: int = 256
  prompt_tokens: int = 768
  temperature: float = 1.0             # 0 takes the likeliest
  rows: int = how(32)                  # at a time

  def __post_init__(self):
    if min(self.tokens, self.prompt_tokens, self.rows) < 1 or self.temperature < 0:
      raise ConfigError('config.out-of-range', f'tokens = {self.tokens}, prompt_tokens = {self.prompt_tokens}, rows = '
                        f'{self.rows}, temperature = {self.temperature}', 'counts are 1 or more, and a temperature is not '
                        'below 0', 'mend it')
    check_length(self.run.model, self.prompt_tokens + self.tokens)

  def open(self, store: Store) -> 'Loaded':
    return Loaded(self, store)


class Loaded:
  """An `Opened` of a run."""

  def __init__(self, judge: ByRun, store: Store):
    trained = load(judge.run, store)
    self.params, self.template, self.tokenizer = trained.params, judge.template, trained.tokenizer
    self.rows, self.longest = judge.rows, judge.prompt_tokens
    self.writer = Writer(trained.model, trained.tokenizer, judge.template, judge.tokens, judge.temperature, judge.rows)
    self.logps = jax.jit(lambda params, batch: answer_logps(trained.model, params, batch).logp_R)

  def write(self, talks: Sequence[Messages], seeds: Sequence[int]) -> list[Said]:
    able = [place for place, talk in enumerate(talks) if len(self._prompt(talk)) <= self.longest]
    said = dict(zip(able, self._written([talks[place] for place in able], [seeds[place] for place in able])))
    return [said.get(place, Said('', True)) for place in range(len(talks))]

  def _written(self, talks: list[Messages], seeds: list[int]) -> list[Said]:
    if not talks:
      return []
    keys = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
    answers, _ = self.writer(self.params, [Question('', talk) for talk in talks], keys)
    return [Said(answer.text, answer.reason == 'length') for answer in answers]

  def weigh(self, talks: Sequence[Messages], options: Sequence[str]) -> np.ndarray:
    """As `Opened.weigh`. Raises: DataError if an option's ids begin another's, which makes log-probs incomparable."""
    rows = [self._row(talk, option) for talk in talks for option in options]
    self._check(rows, options)
    able = [len(before) <= self.longest for before, _ in rows]
    read = [row for row, fits in zip(rows, able) if fits]
    length = round_up(max((len(before) + len(ids) for before, ids in read), default=1))
    logps = [np.asarray(self.logps(self.params, lot)) for lot in in_batches(map(partial(laid, length), read), self.rows)]
    logp_R = np.full(len(rows), np.nan)
    logp_R[able] = np.concatenate([np.zeros(0), *logps])[:len(read)]
    return normalised(logp_R.reshape(len(talks), len(options)))

  def _prompt(self, talk: Messages) -> list[int]:
    return prompt(self.template, self.tokenizer, talk)

  def _row(self, talk: Messages, option: str) -> tuple[list[int], list[int]]:
    """The ids before an option and the option's own, with the blank that the template puts before an answer.

    The end of the turn is left out: whether the judge would have said more is not the question.
    """
    before = self._prompt(talk)
    ids = render(self.template, self.tokenizer, (*talk, Message('assistant', option))).ids.tolist()
    if ids[:len(before)] != before:
      raise DataError('judge.template', f'{type(self.template).__name__}, option {option!r}', 'what stands before an answer is '
                      'written otherwise once there is one', 'use another template')
    own = ids[len(before):]
    end = ends(self.template, self.tokenizer).eos
    return before, own[:len(own) - 1 - own[::-1].index(end)] if end in own else own

  def _check(self, rows: list[tuple[list[int], list[int]]], options: Sequence[str]) -> None:
    ids = [own for _, own in rows[:len(options)]]
    for one, first in enumerate(ids):
      for two, second in enumerate(ids):
        if not first or (one != two and second[:len(first)] == first):
          raise DataError('judge.options', f'options {options[one]!r} and {options[two]!r}',
                          'one is empty or, in tokens, how the other begins', "use for example 'A' and 'B'")


def laid(length: int, row: tuple[list[int], list[int]]) -> Row:
  """tokens and segments i32[length], mask f32[length], 1 on the option."""
  before, own = row
  tokens, segments, mask = (np.zeros(length, kind) for kind in (np.int32, np.int32, np.float32))
  end = len(before) + len(own)
  tokens[:end], segments[:end], mask[len(before):end] = [*before, *own], 1, 1
  return {'tokens': tokens, 'segments': segments, 'mask': mask}


def normalised(logp_NO: np.ndarray) -> np.ndarray:
  """Log-probs given that one of the options is said, f64[N, O]; NaN stays NaN."""
  logp_NO = np.asarray(logp_NO, np.float64)
  with np.errstate(invalid='ignore'):              # NaN says that nothing was read
    return logp_NO - np.logaddexp.reduce(logp_NO, -1, keepdims=True)
