"""How well a model foretells text that it never saw: nats, perplexity and bits per byte, exactly once a token.

Sums are kept, never means of means: the perplexity of a set is exp(sum of nll / number of tokens) over all of it, and
does not depend on how it was cut into batches. Letters: B rows, L positions of a row.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from model.decoder import Model
from model.errors import ConfigError
from model.tokenizer import Tokenizer
from train.data.document import Document
from train.objectives import shift
from train.types import Params


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


TokenNll = Callable[[Params, dict[str, jax.Array]], tuple[jax.Array, jax.Array]]


def token_nll(model: Model) -> TokenNll:
  """A jitted function of (params, batch): nats of each target and whether it counts, both f32[B, L]."""

  @jax.jit
  def judge(params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    row = shift(batch)
    hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
    nll_BL = -model.logp(params, hidden.x_BLD, row.targets_BL)
    return jnp.where(row.weights_BL > 0, nll_BL * row.weights_BL, 0.0), row.weights_BL

  return judge


@dataclass(frozen=True)
class Windows:
  """Documents cut for a model that reads `length` tokens at once.

  A document's first window scores all its targets; each further one moves on by `stride` and scores only the targets
  that none before it did: every token is scored once, with at least `length - stride` tokens before it where there are
  any. Windows are laid into rows one after another, as segments, while they fit.
  """

  length: int
  stride: int

  def __post_init__(self):
    if not 1 <= self.stride <= self.length:
      raise ConfigError('config.out-of-range', f'stride = {self.stride}',
                        'windows that move on by more than their length leave tokens out', f'give 1 to {self.length}')

  def rows(self, documents: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Rows of `length + 1`: tokens, segments (0: padding), mask f32 (1: scored), document (its index; -1: padding)."""
    row, used = self._empty(), 0
    for index, ids in enumerate(documents):
      for begin, end, scored in self._cuts(len(ids)):
        if used + end - begin > self.length + 1:
          yield row
          row, used = self._empty(), 0
        place = slice(used, used + end - begin)
        row['tokens'][place] = ids[begin:end]
        row['segments'][place] = row['segments'].max() + 1
        row['mask'][used + scored - begin:place.stop] = 1.0
        row['document'][place] = index
        used = place.stop
    if used:
      yield row

  def _cuts(self, size: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, first scored target) of each window of a document of `size` tokens."""
    begin, scored = 0, 1
    while scored < size:
      end = min(begin + self.length + 1, size)
      yield begin, end, scored
      begin, scored = begin + self.stride, end

  def _empty(self) -> dict[str, np.ndarray]:
    zeros = np.zeros(self.length + 1, np.int32)
    return {'tokens': zeros.copy(), 'segments': zeros.copy(), 'mask': zeros.astype(np.float32), 'document': zeros - 1}


def batches(rows: Iterable[dict[str, np.ndarray]], size: int) -> Iterator[dict[str, np.ndarray]]:
  """Batches of exactly `size` rows, so that one program serves them all; the last is filled with rows of padding."""
  held: list[dict[str, np.ndarray]] = []
  for row in rows:
    held.append(row)
    if len(held) == size:
      yield {name: np.stack([each[name] for each in held]) for name in row}
      held = []
  if held:
    nothing = {name: np.full_like(value, -1 if name == 'document' else 0) for name, value in held[0].items()}
    held += [nothing] * (size - len(held))
    yield {name: np.stack([each[name] for each in held]) for name in nothing}


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
