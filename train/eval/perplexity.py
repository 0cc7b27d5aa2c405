"""How well a model predicts text that it never saw: nats, perplexity and bits per byte, each token scored once.

Sums are kept, never means of means: the perplexity of a set is exp(sum of nll / number of tokens) over all of it, and
does not depend on how it was cut into batches. Letters: B rows, L positions of a row, T tokens of all documents.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.decoder import Model
from model.tokenizer import Tokenizer
from train.data.document import Document
from train.data.heldout import Heldout, Windows
from train.data.token_files import TokenSplit
from train.objectives import shift
from train.types import Objective, Params

Columns = dict[str, Any]      # arrays that lead with rows, on the host or on a device


@dataclass(frozen=True)
class Score:
  """Negative log-likelihood in nats over a number of tokens, which stand for a number of bytes of text."""

  nll: float = 0.0
  tokens: int = 0
  bytes: int = 0

  def __add__(self, other: 'Score') -> 'Score':
    return Score(self.nll + other.nll, self.tokens + other.tokens, self.bytes + other.bytes)

  @property
  def loss(self) -> float:
    """Nats a token; NaN for no token at all."""
    return self.nll / self.tokens if self.tokens else math.nan

  @property
  def perplexity(self) -> float:
    """exp of the loss: the number of equally likely tokens that would be as hard to predict."""
    return math.exp(self.loss) if not self.loss > 700 else math.inf

  @property
  def bits_per_byte(self) -> float:
    """Bits a byte of UTF-8: the same unit for every tokenizer."""
    return self.nll / math.log(2) / self.bytes if self.bytes else math.nan


class Scorer:
  """Scores the same rows again and again while a model learns, with the nll of its training objective.

  `rows` are columns of N rows; they are taken `batch` at a time, the last lot filled with rows that weigh nothing, and
  their nll is added up over all. `bytes_of` i32[V] says how many bytes an id stands for.
  """

  def __init__(self, model: Model, objective: Objective, rows: Columns, batch: int, bytes_of: np.ndarray):
    loss_fn = objective(model)
    self.nll = jax.jit(lambda params, batch: loss_fn(params, {}, batch, jax.random.key(0)).metrics['nll'])
    self.lots = list(lots(rows, batch))
    self.bytes = sum(scored_bytes(lot, bytes_of) for lot in self.lots)

  def __call__(self, params: Params) -> Score:
    """The score of all rows."""
    parts = jax.device_get([self.nll(params, lot) for lot in self.lots])
    return Score(sum(float(part.total) for part in parts), round(sum(float(part.weight) for part in parts)), self.bytes)


def lots(rows: Columns, size: int) -> Iterator[Columns]:
  """Parts of exactly `size` rows, so that one program serves all; the last is filled with zeros, which are padding."""
  count = len(rows['tokens'])
  for begin in range(0, count, size):
    lot = {name: column[begin:begin + size] for name, column in rows.items()}
    missing = max(0, begin + size - count)
    yield {name: np.pad(column, [(0, missing)] + [(0, 0)] * (column.ndim - 1)) for name, column in lot.items()}


def scored_bytes(batch: Columns, bytes_of: np.ndarray) -> int:
  """How many bytes the targets that count stand for."""
  if 'targets' in batch:
    return int(bytes_of[batch['targets']][batch['mask'] > 0].sum())
  row = jax.device_get(shift(batch))
  return int(bytes_of[row.targets_BL][row.weights_BL > 0].sum())


@functools.lru_cache(maxsize=4)
def token_nll(model: Model) -> Callable[[Params, Columns], tuple[jax.Array, jax.Array]]:
  """A jitted function of (params, batch): nats of each target, and 1 where it counts, both f32[B, L]."""

  @jax.jit
  def judge(params: Params, batch: Columns) -> tuple[jax.Array, jax.Array]:
    row = shift(batch)
    hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
    nll_BL = -model.logp(params, hidden.x_BLD, row.targets_BL)
    return jnp.where(row.weights_BL > 0, nll_BL, 0.0), row.weights_BL

  return judge


def score_documents(model: Model, params: Params, tokenizer: Tokenizer, documents: Sequence[Document], *,
                    length: int, stride: int, batch: int) -> list[Score]:
  """The score of each document, `bos text eos`, read in windows of `length` tokens that move on by `stride`.

  Each token after bos is scored once, with at least `length - stride` tokens before it, or as many as its document has;
  the end counts as a token and as no byte.
  """
  texts = in_memory(tokenizer, documents)
  windows = Windows(texts, None, length, stride)
  nll_T, scored_T = np.zeros(len(texts.ids) + length), np.zeros(len(texts.ids) + length, np.int64)
  judge = token_nll(model)
  for lot in Heldout([windows]).batches(batch):
    nll_BL, weights_BL = (np.asarray(x, np.float64) for x in judge(params, lot))
    places_BL = lot['record'][:, None] * stride + np.arange(1, length + 1)
    nll_T[places_BL[weights_BL > 0]] += nll_BL[weights_BL > 0]
    scored_T[places_BL[weights_BL > 0]] += 1
  nlls, counts = (np.add.reduceat(x_T, texts.offsets[:-1]) for x_T in (nll_T, scored_T))
  return [Score(float(nll), int(count), len(document.text.encode()))
          for nll, count, document in zip(nlls, counts, documents)]


def in_memory(tokenizer: Tokenizer, documents: Sequence[Document]) -> TokenSplit:
  """The documents as a split of tokens that no file holds."""
  ids = [np.array([tokenizer.bos, *tokenizer.encode(document.text), tokenizer.eos]) for document in documents]
  offsets = np.cumsum([0, *map(len, ids)])
  sources = np.zeros(len(ids), np.int32)
  return TokenSplit(Path(), 'heldout', np.concatenate(ids), offsets, sources, tokenizer.bytes_of, {})


def by_source(documents: Sequence[Document], scores: Sequence[Score]) -> dict[str, Score]:
  """The sum of the scores of each source's documents."""
  sums: dict[str, Score] = {}
  for document, score in zip(documents, scores):
    sums[document.source] = sums.get(document.source, Score()) + score
  return sums
