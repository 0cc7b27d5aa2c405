"""What is wanted of a model: the next token, or a masked one. Each is a value that turns a model into a loss.

Letters: B rows, L positions.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from model.decoder import Hidden, Model
from model.errors import ConfigError
from train.canonical import added
from train.types import Batch, Form, Frozen, Key, Loss, LossFn, Mean, Objective, Params


class Shifted(NamedTuple):
  """Rows as a causal model reads them, with targets: position t is scored on token t + 1."""

  inputs_BL: jax.Array
  segments_BL: jax.Array
  targets_BL: jax.Array
  weights_BL: jax.Array      # f32: 0 on padding and where the target begins another document


def shift(batch: Batch) -> Shifted:
  """L inputs and L targets from rows of L + 1 tokens. Targets are shifted here and nowhere else.

  `batch` holds tokens i32[B, L+1], segments i32[B, L+1] (0 is padding) and, if not every token counts, mask f32[B, L+1].
  """
  tokens, segments = batch['tokens'], batch['segments']
  inside = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  weights_BL = inside.astype(jnp.float32)
  if 'mask' in batch:
    weights_BL = weights_BL * batch['mask'][:, 1:].astype(jnp.float32)
  return Shifted(tokens[:, :-1], segments[:, :-1], tokens[:, 1:], weights_BL)


@dataclass(frozen=True)
class NextToken(Objective):
  """Cross-entropy of the next token, plus `z_loss` times the mean squared log-partition (PaLM: Chowdhery et al. 2022).

  `smoothing` is the share of each label that lies evenly on the whole vocabulary (Szegedy et al. 2016). The metric `nll`,
  and so all that is measured on held-out rows, stays that of the true token.
  """

  z_loss: float = 0.0
  smoothing: float = added(0.0)

  def __post_init__(self):
    if self.z_loss < 0:
      raise ConfigError('config.out-of-range', f'z_loss = {self.z_loss}', 'it is the weight of a penalty',
                        'give 0 or more')
    if not 0 <= self.smoothing < 1:
      raise ConfigError('config.out-of-range', f'smoothing = {self.smoothing}', 'it is a share of the label, not all of it',
                        'give 0 or more and less than 1, for example 0.1')

  def __call__(self, model: Model) -> LossFn:
    def loss(params, frozen, batch, key) -> Loss:
      row = shift(batch)
      hidden = model.hidden(params, row.inputs_BL, row.segments_BL)
      return judged(model, params, hidden, row.targets_BL, row.weights_BL, self.z_loss, self.smoothing)

    return loss


@dataclass(frozen=True)
class MaskedLM(Objective):
  """Cross-entropy of the chosen tokens of a corrupted row (Devlin et al. 2019), for a bidirectional model.

  The batch holds tokens i32[B, L] (corrupted), segments i32[B, L], targets i32[B, L] and mask f32[B, L] (1 = was chosen).
  """

  form: ClassVar[Form] = 'masked'

  def __call__(self, model: Model) -> LossFn:
    if model.config.causal:
      raise ConfigError('config.causal-mask', 'objective = MaskedLM, model.causal = True',
                        'a masked token is predicted from both sides', 'set model.causal to False')

    def loss(params, frozen, batch, key) -> Loss:
      hidden = model.hidden(params, batch['tokens'], batch['segments'])
      return judged(model, params, hidden, batch['targets'], batch['mask'].astype(jnp.float32), 0.0)

    return loss


def judged(model: Model, params: Params, hidden: Hidden, targets_BL: jax.Array, weights_BL: jax.Array,
           z_loss: float, smoothing: float = 0.0) -> Loss:
  """The loss of a forward pass: cross-entropy, z-loss and the router's penalties, all weighed by scored tokens."""
  head = model.nll(params, hidden.x_BLD, targets_BL, weights_BL, z_loss, smoothing)
  tokens_B = weights_BL.sum(-1)
  tokens = tokens_B.sum()
  penalties = {name: Mean((penalty_B * tokens_B).sum(), tokens) for name, penalty_B in hidden.aux.items()}
  asked = (1 - smoothing) * head.nll + smoothing * head.spread + z_loss * head.z
  total = asked + sum(mean.total for mean in penalties.values())
  metrics = {'nll': Mean(head.nll, tokens), 'accuracy': Mean(head.correct, tokens), 'log_z_squared': Mean(head.z, tokens)}
  return Loss(Mean(total, tokens), metrics | penalties)


SEEN = 'seen/'


def noted(loss_fn: LossFn) -> LossFn:
  """The loss, with the mean of each column `seen/name` f32[B] of the batch as a further metric `name`."""

  def seen(params: Params, frozen: Frozen, batch: Batch, key: Key) -> Loss:
    loss = loss_fn(params, frozen, batch, key)
    notes = {name.removeprefix(SEEN): Mean(column_B.sum(), jnp.float32(len(column_B)))
             for name, column_B in batch.items() if name.startswith(SEEN)}
    return Loss(loss.objective, loss.metrics | notes)

  return seen
