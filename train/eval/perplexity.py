"""How well a model foretells text that it never saw: nats, perplexity and bits per byte, exactly once a token.

Sums are kept, never means of means: the perplexity of a set is exp(sum of nll / number of tokens) over all of it, and
does not depend on how it was cut into batches. Letters: B rows, L positions of a row.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from model.decoder import Model
from model.tokenizer import Tokenizer
from train.data.document import Document
from train.eval.windows import Windows, batches
from train.objectives import shift
from train.types import Batch, Objective, Params


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
    """exp of the loss: the number of equally likely tokens that would be as hard to foretell."""
    return math.exp(self.loss) if self.loss < 700 else math.inf if self.loss == self.loss else math.nan

  @property
  def bits_per_byte(self) -> float:
    """Bits a byte of UTF-8: the same unit for every tokenizer."""
    return self.nll / math.log(2) / self.bytes if self.bytes else math.nan


class Scorer:
  """Scores the same rows again and again while a model learns, by the very loss that it is trained with.

  `rows` are columns of N rows; they are taken `batch` at a time, the last lot filled with rows that weigh nothing, and
  their nll is added up over all. `bytes_of` i32[V] says how many bytes an id stands for.
  """

  def __init__(self, model: Model, objective: Objective, rows: dict[str, np.ndarray], batch: int, bytes_of: np.ndarray):
    loss_fn = objective(model)
    self.nll = jax.jit(lambda params, batch: loss_fn(params, {}, batch, jax.random.key(0)).metrics['nll'])
    singly = ({name: column[i] for name, column in rows.items()} for i in range(len(rows['tokens'])))
    self.batches = list(batches(singly, batch))
    self.bytes = sum(scored_bytes(each, bytes_of) for each in self.batches)

  def __call__(self, params: Params) -> Score:
    """The score of all rows."""
    parts = jax.device_get([self.nll(params, each) for each in self.batches])
    return Score(sum(float(part.total) for part in parts), round(sum(float(part.weight) for part in parts)), self.bytes)


def scored_bytes(batch: dict[str, np.ndarray], bytes_of: np.ndarray) -> int:
  """How many bytes the targets that count stand for."""
  if 'targets' in batch:
    return int(bytes_of[batch['targets']][batch['mask'] > 0].sum())
  row = jax.device_get(shift(batch))
  return int(bytes_of[row.targets_BL][row.weights_BL > 0].sum())


@functools.lru_cache(maxsize=4)
def token_nll(model: Model) -> Callable[[Params, Batch], tuple[jax.Array, jax.Array]]:
  """A jitted function of (params, batch): nats of each target, and 1 where it counts, both f32[B, L]."""

  @jax.jit
  def judge(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    row = shift(batch)
    hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
    nll_BL = -model.logp(params, hidden.x_BLD, row.targets_BL)
    return jnp.where(row.weights_BL > 0, nll_BL, 0.0), row.weights_BL

  return judge


def score_documents(model: Model, params: Params, tokenizer: Tokenizer, documents: Sequence[Document], *,
                    windows: Windows, batch: int) -> list[Score]:
  """The score of each document: `bos + text + eos`, its end counted as a token and as no byte."""
  ids = [np.asarray([tokenizer.bos, *tokenizer.encode(document.text), tokenizer.eos]) for document in documents]
  judge, nll = token_nll(model), np.zeros(len(ids))
  tokens = np.zeros(len(ids), np.int64)
  for each in batches(windows.rows(ids), batch):
    of_BL = each.pop('document')[:, 1:]
    nll_BL, weights_BL = (np.asarray(x, np.float64) for x in judge(params, each))
    counted = weights_BL > 0
    np.add.at(nll, of_BL[counted], nll_BL[counted])
    np.add.at(tokens, of_BL[counted], 1)
  return [Score(float(nll[i]), int(tokens[i]), len(document.text.encode())) for i, document in enumerate(documents)]


def by_source(documents: Sequence[Document], scores: Sequence[Score]) -> dict[str, Score]:
  """The sum of the scores of each source's documents."""
  sums: dict[str, Score] = {}
  for document, score in zip(documents, scores):
    sums[document.source] = sums.get(document.source, Score()) + score
  return sums
