"""A classification head, in the tree beside the model itself: `params['classifier']`.

    Run(..., restore=parent, edits=(Classifier(classes=8, pooling='mean'),), objective=Classification())

Its key in the tree says what it reads:

    classifier/token    each token by itself: a word by its first piece, a text by its first token
    classifier/mean     the mean of all tokens of its text

Letters: B rows, L positions, D width, C classes.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from model.decoder import Hidden, Params, box
from model.edit import Edit
from model.errors import ConfigError, demand
from model.sharding import is_box, unbox
from model.start import normal

Pooling = Literal['token', 'mean']


@dataclass(frozen=True)
class Classifier(Edit):
  """A matrix to `classes` numbers, with a bias; before it, with `dense`, a square one and tanh, as BERT's pooler has them.

  Matrices are normal of deviation 0.02 and biases 0 (Devlin et al. 2019), in float32.
  """

  classes: int
  pooling: Pooling = 'token'
  dense: bool = False

  def __post_init__(self):
    demand(self.classes >= 2, 'Classifier.classes', self.classes, 'one class cannot be told apart', 'use 2 or more')

  def __call__(self, params: Params, key: jax.Array) -> Params:
    """Plain or boxed. Raises: ConfigError `edit.twice` if it is there."""
    if 'classifier' in params:
      raise ConfigError('edit.twice', 'Classifier', 'the model has a head that classifies', 'leave it out of the edits')
    table: Any = params['embedding']['table']
    width = (table.value if is_box(table) else table).shape[1]
    keys = jax.random.split(key)
    head = _affine(keys[0], width, self.classes, 'vocab')
    if self.dense:
      head['dense'] = _affine(keys[1], width, width, 'width')
    return {**params, 'classifier': {self.pooling: head if is_box(table) else unbox(head)}}


def _affine(key: jax.Array, inputs: int, outputs: int, name: str) -> dict[str, Any]:
  """A boxed matrix, which learns as a head does, and a bias of that name."""
  weight = box((inputs, outputs), 'embed', 'vocab')
  return {'weight': weight.replace(value=0.02 * normal(key, (inputs, outputs))), 'bias': box((outputs,), name)}


def class_logits(params: Params, hidden: Hidden, segments_BL: jax.Array) -> jax.Array:
  """f32[B, L, C]: the logits of the classes at each position. Texts that share a row do not see each other.

  Raises: ConfigError if the model has no such head.
  """
  if 'classifier' not in params:
    raise ConfigError('classifier.none', 'parameters without a classifier', 'the model has no head that tells classes apart',
                      'add Classifier() to the edits of the run')
  (pooling, head), = params['classifier'].items()
  x_BLD = hidden.x_BLD.astype(jnp.float32)
  if pooling == 'mean':
    x_BLD = segment_mean(x_BLD, segments_BL)
  if 'dense' in head:
    x_BLD = jnp.tanh(_times(x_BLD, head['dense']))
  return _times(x_BLD, head)


def segment_mean(x_BLD: jax.Array, segments_BL: jax.Array) -> jax.Array:
  """The mean over the tokens of a position's own segment, f32[B, L, D]; 0 on padding.

  It is a matmul with L numbers a position: exact zeros keep texts apart, and no chip adds in another order each time.
  """
  same_BLS = (segments_BL[:, :, None] == segments_BL[:, None, :]) & (segments_BL[:, :, None] > 0)
  weights_BLS = same_BLS / jnp.maximum(same_BLS.sum(-1, keepdims=True), 1)
  return jnp.einsum('BLS,BSD->BLD', weights_BLS, x_BLD, precision='highest')


def _times(x_BLD: jax.Array, layer: Params) -> jax.Array:
  return jnp.einsum('BLD,DC->BLC', x_BLD, layer['weight'].astype(jnp.float32)) + layer['bias'].astype(jnp.float32)
