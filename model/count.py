"""Parameters and FLOPs of a model, from its config alone."""

from typing import NamedTuple

from model.config import AllHeads, Decoder, Gated, LayerNorm, Learned, MoE, Plain, Typed
from model.stack import role_of


def parameters(config: Decoder) -> int:
  """How many numbers are learned; a tied table counts once."""
  ends = _positions(config) + _types(config) + (0 if config.tied else _table(config))
  return _table(config) + ends + _body(config, active=False) + _transform(config)


def active_parameters(config: Decoder) -> int:
  """The N of 6N: the parameters that a token is multiplied with. Of experts the chosen ones; no input embeddings."""
  return _body(config, active=True) + _transform(config) + _table(config)


class Learning(NamedTuple):
  """Which part of a model is trained."""

  parameters: float                    # trainable, of those that a token is multiplied with
  reach: int                           # how many of the last layers the backward pass goes through


def flops_per_token(config: Decoder, length: int, learning: Learning | None = None, head: bool = True) -> float:
  """Floating point operations of one token's forward and backward pass in rows of `length` tokens.

  6N for the matmuls, and 12 * keys * H * K a layer for scores and their sums over the keys that a position sees on
  average: about length / 2 if causal, which makes 6 L S d (Chowdhery et al. 2022, at half). Remat is not counted.

  Of each 6 two are the forward pass, two take the gradient back through a matrix and two are that of the matrix itself; so with
  `learning` (default: all) only those count that are computed. Without `head` the output matrix is not counted.
  """
  attention, body = config.attention, _body(config, active=True)
  active = float(active_parameters(config) if head else body)
  learning = learning or Learning(active, config.layers)
  back = active - body * (1 - learning.reach / config.layers)
  seen = [mean_keys(config, length, role_of(config, i).local) for i in range(config.layers)]
  scores = 4 * sum(seen) + 8 * sum(seen[config.layers - learning.reach:])
  return 2 * (active + back + learning.parameters) + scores * attention.heads * attention.head_size


def mean_keys(config: Decoder, length: int, local: bool) -> float:
  """How many keys a position of a row sees on average; causal rows at exactly half, as is the custom."""
  size = min(config.attention.window.size, length) if local and config.attention.window else length
  if config.causal:
    return size * (1 - size / (2 * length))
  return min(2 * size, length) if local else length


def _table(config: Decoder) -> int:
  return config.vocab * config.width


def _positions(config: Decoder) -> int:
  return config.positions.length * config.width if isinstance(config.positions, Learned) else 0


def _types(config: Decoder) -> int:
  return config.embedding.types * config.width if isinstance(config.embedding, Typed) else 0


def _transform(config: Decoder) -> int:
  """What comes before the head, and its bias."""
  if config.head is None:
    return 0
  dense = (config.width + config.head.dense_bias) * config.width
  return dense + _norm(config, config.width) + config.head.logit_bias * config.vocab


def _norm(config: Decoder, size: int) -> int:
  return size * (2 if isinstance(config.norm, LayerNorm) and config.norm.bias else 1)


def _body(config: Decoder, active: bool) -> int:
  norms = 4 if config.placement == 'sandwich' else 2
  layer = _attention(config) + _mlp(config, active) + norms * _norm(config, config.width)
  outer = (config.placement != 'post') + (config.embedding is not None) - (config.placement == 'pre_but_first')
  return config.layers * layer + outer * _norm(config, config.width)


def _attention(config: Decoder) -> int:
  a = config.attention
  projected = (a.heads + 2 * a.kv_heads) * a.head_size
  biases = (projected if a.qkv_bias else 0) + (config.width if a.out_bias else 0)
  normed = a.heads + a.kv_heads if isinstance(a.qk_norm, AllHeads) else 2 if a.qk_norm else 0
  return config.width * (projected + a.heads * a.head_size) + biases + normed * a.head_size


def _mlp(config: Decoder, active: bool) -> int:
  if isinstance(config.mlp, MoE):
    used = config.mlp.top_k if active else config.mlp.experts
    return config.width * config.mlp.experts + used * _plain(config.width, config.mlp.expert)
  return _plain(config.width, config.mlp)


def _plain(width: int, mlp: Gated | Plain) -> int:
  ups = 2 if isinstance(mlp, Gated) else 1
  return (ups + 1) * width * mlp.hidden + (ups * mlp.hidden + width if mlp.bias else 0)
