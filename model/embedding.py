"""Sentence embeddings: one vector of length 1 for a text, so that texts of like meaning have a large dot product.

    embedder = Embedder(model, params, tokenizer)
    embedder(['a cat', 'a kitten', 'stock prices'])               # f32[3, D]

Reimers and Gurevych 2019. Letters: B rows, L positions, D width, N texts.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from model.decoder import Model, Params, check_length
from model.tokenizer import Tokenizer

LEAST = 16                        # tokens of the shortest rows; others have twice as many each, so few programs are compiled


def embed(model: Model, params: Params, tokens_BL: jax.Array, segments_BL: jax.Array) -> jax.Array:
  """f32[B, D]: the mean of what the model makes of each real token (segment not 0), at length 1. 0 for rows without any."""
  x_BLD = model.hidden(params, tokens_BL, segments_BL).x_BLD.astype(jnp.float32)
  total_BD = jnp.where((segments_BL != 0)[..., None], x_BLD, 0).sum(1)
  return total_BD / jnp.maximum(jnp.linalg.norm(total_BD, axis=-1, keepdims=True), 1e-12)     # the count drops out


class Embedder:
  """Embeds texts of any lengths, `batch` at a time, those of like length together; what is beyond `length` tokens is cut.

  Each is read as bos, its ids, eos: BERT's [CLS] and [SEP].
  Raises: ConfigError if the model has no positions for so many tokens.
  """

  def __init__(self, model: Model, params: Params, tokenizer: Tokenizer, length: int = 256, batch: int = 32):
    check_length(model.config, length)
    self.params, self.tokenizer, self.length, self.batch, self.width = params, tokenizer, length, batch, model.config.width
    self._embed = jax.jit(lambda params, tokens_BL, segments_BL: embed(model, params, tokens_BL, segments_BL))

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    """f32[N, D], in the order of the texts. Raises: DataError for a text that cannot be encoded."""
    rows = [self.ids(text) for text in texts]
    found_ND = np.zeros((len(rows), self.width), np.float32)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for begin in range(0, len(order), self.batch):
      chosen = order[begin:begin + self.batch]
      found_ND[chosen] = self._rows([rows[i] for i in chosen])
    return found_ND

  def ids(self, text: str) -> list[int]:
    """What the model reads of a text."""
    ids = self.tokenizer.encode(text)[:self.length - 2]
    return [self.tokenizer.bos, *ids, self.tokenizer.eos]

  def _rows(self, rows: list[list[int]]) -> np.ndarray:
    length = LEAST
    while length < len(rows[-1]):
      length *= 2
    tokens_BL = np.full((self.batch, min(length, self.length)), self.tokenizer.pad, np.int32)
    segments_BL = np.zeros_like(tokens_BL)
    for i, row in enumerate(rows):
      tokens_BL[i, :len(row)], segments_BL[i, :len(row)] = row, 1
    return np.asarray(self._embed(self.params, tokens_BL, segments_BL))[:len(rows)]
