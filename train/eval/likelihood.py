"""A model as benchmarks query it: log-probs of continuations and of whole texts, and generation.

Tokens are those of context and continuation together, cut where the context alone ends; blanks before the cut belong to the
continuation (lm-evaluation-harness does so, and figures compare only if all do). Nothing is put before a context but where it
is empty: then what documents begin with.

Letters: B rows, L positions, V vocabulary.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model.decoder import Model, own
from model.errors import ConfigError
from model.generate import generate, round_up
from model.sampling import Sampling
from model.tokenizer import Tokenizer
from train.types import Params


class Continuation(NamedTuple):
  """How likely a continuation is."""

  logp: float              # nats, summed over its tokens
  greedy: bool             # whether each of its tokens is the likeliest one


class Pair(NamedTuple):
  """Token ids of what is given and of what is judged, which has at least one."""

  context: list[int]
  continuation: list[int]


class Likelihoods:
  """Answers such queries, `batch` rows at a time. Of a text of more than `longest` tokens the last ones are read."""

  def __init__(self, model: Model, params: Params, tokenizer: Tokenizer, batch: int = 8, longest: int = 2048):
    if batch < 1 or longest < 2:
      raise ConfigError('config.out-of-range', f'batch = {batch}, longest = {longest}', 'they count rows and tokens',
                        'use 1 row and 2 tokens, or more')
    self.model, self.params, self.tokenizer, self.batch, self.longest = model, own(params), tokenizer, batch, longest
    self.read = jax.jit(partial(_read, model))

  def pair(self, context: str, continuation: str) -> Pair:
    """Both in tokens."""
    blanks = len(context) - len(context.rstrip())
    if blanks:
      context, continuation = context[:-blanks], context[-blanks:] + continuation
    if not context:
      return Pair([self.tokenizer.bos], self.tokenizer.encode(continuation))
    before, whole = self.tokenizer.encode(context), self.tokenizer.encode(context + continuation)
    return Pair(before, whole[len(before):])

  def continuations(self, pairs: Sequence[Pair]) -> list[Continuation]:
    """The likelihood of each pair, in their order; the longest are read first, so that memory runs out at once or never."""
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i].context) - len(pairs[i].continuation))
    found: dict[int, Continuation] = {}
    for begin in range(0, len(order), self.batch):
      lot = order[begin:begin + self.batch]
      found |= zip(lot, self._judged([pairs[i] for i in lot]))
    return [found[i] for i in range(len(pairs))]

  def wholes(self, texts: Sequence[str]) -> list[float]:
    """The log-prob of each text, nats: every token once, in windows that lie end to end, each after the token before it."""
    windows = [(i, pair) for i, text in enumerate(texts) for pair in self._windows(self.tokenizer.encode(text))]
    total = [0.0] * len(texts)
    for (i, _), each in zip(windows, self.continuations([pair for _, pair in windows])):
      total[i] += each.logp
    return total

  def write(self, context: str, tokens: int, until: Sequence[str], temperature: float = 0.0, seed: int = 0) -> str:
    """The generated text, at most `tokens` tokens, up to the first of `until`, which is left out."""
    ids = (self.tokenizer.encode(context) or [self.tokenizer.bos])[-(self.longest - tokens):]
    said = generate(self.model, self.params, [ids], max_new=tokens, sampling=Sampling(temperature), key=jax.random.key(seed),
                    eos=self.tokenizer.eos, limit=self.tokenizer.size).tokens[0]
    text = self.tokenizer.decode(said.tolist())
    return text[:min((text.index(end) for end in until if end and end in text), default=len(text))]

  def _windows(self, ids: list[int]) -> list[Pair]:
    """The last window begins with tokens that are read and not scored, so that its tokens have a full context too."""
    size, whole = self.longest, [self.tokenizer.bos, *ids]
    ends = [*range(size, len(ids), size), len(ids)] if ids else []
    begins = [0, *ends[:-1]]
    return [Pair(whole[max(0, end - size):begin + 1] if end == len(ids) else whole[begin:begin + 1], ids[begin:end])
            for begin, end in zip(begins, ends)]

  def _judged(self, pairs: list[Pair]) -> list[Continuation]:
    rows = [(pair.context + pair.continuation)[-(self.longest + 1):] for pair in pairs]
    length = round_up(max(len(row) for row in rows) - 1)
    tokens_BL, targets_BL = np.zeros((2, self.batch, length), np.int32)
    weights_BL, segments_BL = np.zeros((self.batch, length), bool), np.zeros((self.batch, length), np.int32)
    for i, (row, pair) in enumerate(zip(rows, pairs)):
      end = len(row) - 1
      tokens_BL[i, :end], targets_BL[i, :end], segments_BL[i, :end] = row[:-1], row[1:], 1
      weights_BL[i, max(0, end - len(pair.continuation)):end] = True
    logp_B, greedy_B = jax.device_get(self.read(self.params, tokens_BL, segments_BL, targets_BL, weights_BL))
    return [Continuation(float(logp), bool(greedy)) for logp, greedy in zip(logp_B[:len(pairs)], greedy_B)]


def _read(model: Model, params: Params, tokens_BL, segments_BL, targets_BL, weights_BL) -> tuple[jax.Array, jax.Array]:
  """The summed log-prob of weighted targets, f32[B], and whether all of them are likeliest, bool[B]."""
  logits_BLV = model.logits(params, model.hidden(params, tokens_BL, segments_BL).x_BLD)
  logp_BL = jnp.take_along_axis(jax.nn.log_softmax(logits_BLV), targets_BL[..., None], -1)[..., 0]
  right_BL = (logits_BLV.argmax(-1) == targets_BL) | ~weights_BL
  return jnp.where(weights_BL, logp_BL, 0.0).sum(1), right_BL.all(1)
