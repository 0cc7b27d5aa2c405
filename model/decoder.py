"""The whole network as pure functions on a plain tree of parameters: `build(config)` gives a `Model`.

Letters: B rows, L query positions, S key positions, D width, H query heads, G key heads, K head size, F hidden units,
V vocabulary, E experts, N layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from kernels.head import HeadSums, token_logp, weighted_nll
from kernels.ranges import Ranges, cached_ranges, causal_ranges, packed_ranges
from kernels.zigzag import InLine, order_of
from model import cache as caches
from model.attention import Sight
from model.block import Aux, Block
from model.cache import Cache
from model.config import Compute, Decoder, Learned, Rotary, Transformed, Typed
from model.errors import ConfigError, demand
from model.linear import dense, is_weight, ready
from model.mlp import ACTIVATIONS
from model.norm import Norm
from model.rotary import turns
from model.sharding import apart, dealt, is_box, joined, parts, pin, reordered
from model.stack import Role, Stack, role_of, split
from model.start import start

Params = Any
Key = jax.Array

# the parts of a tree that a model itself reads
OWN = ('embedding', 'types', 'positions', 'embedding_norm', 'layers', 'norm', 'transform', 'head')


def own(params: Params) -> Params:
  """The tree without what edits put beside the model."""
  return {name: part for name, part in params.items() if name in OWN}


class Hidden(NamedTuple):
  """What the last norm gives, before the head."""

  x_BLD: jax.Array
  cache: Cache | None
  aux: Aux                            # f32[B] each, to add to a row's mean loss (model.moe.losses); {} without experts


class Model(NamedTuple):
  """A decoder as functions. Parameters are the unboxed tree; `init` gives it boxed with logical names (`unbox`)."""

  config: Decoder
  init: Callable[[Key], Params]
  hidden: Callable[..., Hidden]                       # (params, tokens_BL, segments_BL=None, cache=None, types_BL=None)
  logp: Callable[..., jax.Array]                      # (params, x_BLD, targets_BL, temperature=1.0) -> f32[B, L]
  nll: Callable[..., HeadSums]                        # (params, x_BLD, targets_BL, weights_BL, z_coefficient=0, smoothing=0)
  logits: Callable[[Params, jax.Array], jax.Array]    # (params, x_BLD) -> f32[B, L, V]: for few positions
  cache: Callable[[int, int], Cache]                  # (batch, length) -> empty


def build(config: Decoder, compute: Compute = Compute()) -> Model:
  """The model that a config describes, computed as `compute` says."""
  stack = Stack(config, compute)
  last: Any = Norm(config.norm)
  dtype = jnp.dtype(config.compute_dtype)

  def hidden(params: Params, tokens_BL: jax.Array, segments_BL: jax.Array | None = None,
             cache: Cache | None = None, types_BL: jax.Array | None = None) -> Hidden:
    """Rows hold documents 1, 2, ... in turn, and padding 0; without segments, one document each.

    With a cache, tokens go on where each row stood, and padding comes after them. Without types, all are 0.
    """
    seen_BL = jnp.ones(tokens_BL.shape, bool) if segments_BL is None else segments_BL != 0
    positions_BL = places(tokens_BL, segments_BL, cache)
    sights = {each: see(config, positions_BL, segments_BL, cache, each)
              for each in {role_of(config, i) for i in range(config.layers)}}
    order = sights[role_of(config, 0)].order          # rows cut along positions: laid once, where they are but numbers
    x_BLD = embed(config, params, dealt(tokens_BL, order), dealt(positions_BL, order),
                  None if types_BL is None else dealt(types_BL, order))
    x_BLD, layers, aux = stack(params['layers'], x_BLD, sights, None if cache is None else cache.layers)
    x_BLD = reordered(x_BLD, order, InLine(order.n))
    if config.placement != 'post':
      x_BLD = last.apply({'params': params['norm']}, x_BLD)
    if cache is not None and layers is not None:
      cache = Cache(layers, cache.lengths_B + seen_BL.sum(1, dtype=jnp.int32))
    return Hidden(x_BLD, cache, aux)

  def laid(params: Params, x_BLD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the head multiplies, cut over the vocabulary alone: gathered once, and not in every tile."""
    x_BLD, w_DV = head(config, params, x_BLD)
    return x_BLD, pin(w_DV, None, 'vocab')

  def logp(params: Params, x_BLD: jax.Array, targets_BL: jax.Array, temperature: float = 1.0) -> jax.Array:
    (x, targets), groups = apart(x_BLD, targets_BL)
    logp = token_logp(*laid(params, x), targets, softcap=config.softcap, temperature=temperature, dtype=dtype, groups=groups)
    return joined(logp, len(x_BLD))

  def nll(params: Params, x_BLD: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array,
          z_coefficient: float = 0.0, smoothing: float = 0.0) -> HeadSums:
    (x, targets, weights), groups = apart(x_BLD, targets_BL, weights_BL)
    return weighted_nll(*laid(params, x), targets, weights, softcap=config.softcap, z_coefficient=z_coefficient,
                        smoothing=smoothing, dtype=dtype, groups=groups)

  def logits(params: Params, x_BLD: jax.Array) -> jax.Array:
    x_BLD, w_DV = head(config, params, x_BLD)
    if isinstance(w_DV, jax.Array):
      y_BLV = jnp.einsum('BLD,DV->BLV', x_BLD.astype(dtype), w_DV.astype(dtype), preferred_element_type=jnp.float32)
    else:
      y_BLV = dense(x_BLD.astype(jnp.float32), w_DV, dtype=config.compute_dtype)
    return y_BLV if config.softcap is None else config.softcap * jnp.tanh(y_BLV / config.softcap)

  def cache(batch: int, length: int) -> Cache:
    demand(config.causal, 'Decoder.causal', config.causal, 'later tokens would change what a cache holds', 'set it to True')
    check_length(config, length)
    return caches.empty(config, batch, length, compute.cache)

  def init(key: Key) -> Params:
    return start(config, jax.eval_shape(partial(shapes, config)), key)

  return Model(config, init, hidden, logp, nll, logits, cache)


def shapes(config: Decoder) -> Params:
  """The boxed tree of parameters, zeros all."""
  tokens_BL = jnp.zeros((1, 1), jnp.int32)
  x_BLD = jnp.zeros((1, 1, config.width))
  sight = see(config, tokens_BL, None, None, role_of(config, 0))
  layer = Block(config).init(jax.random.key(0), x_BLD, sight)['params']
  lacks = {'attention_norm'} if role_of(config, 0).bare else set()
  layers = {part: stacked(inner, config.layers - (part in lacks)) for part, inner in layer.items()}
  params = {'embedding': {'table': box((config.vocab, config.width), 'rows', 'width')}, 'layers': layers}
  if isinstance(config.positions, Learned):
    params['positions'] = {'table': box((config.positions.length, config.width), 'positions', 'width')}
  norm = partial(Norm(config.norm).init, jax.random.key(0), x_BLD)
  if config.placement != 'post':
    params['norm'] = norm()['params']
  if isinstance(config.embedding, Typed):
    params['types'] = {'table': box((config.embedding.types, config.width), 'positions', 'width')}
  if config.embedding is not None:
    params['embedding_norm'] = norm()['params']
  if config.head is not None:          # its matrix is cut, and learns, as the head does
    square = {'weight': box((config.width, config.width), 'embed', 'vocab')}
    square |= {'bias': box((config.width,), 'width')} if config.head.dense_bias else {}
    params['transform'] = {'dense': square, 'norm': norm()['params']}
    params['transform'] |= {'bias': box((config.vocab,), 'vocab')} if config.head.logit_bias else {}
  if not config.tied:
    params['head'] = {'weight': box((config.width, config.vocab), 'embed', 'vocab')}
  return params


def stacked(layer: Params, count: int) -> Params:
  """The boxed parameters of so many layers like this one."""
  return jax.tree.map(lambda x: box((count, *x.value.shape), 'layers', *x.names), layer, is_leaf=is_box)


def box(shape: tuple[int, ...], *names: str) -> nn.LogicallyPartitioned:
  """Zeros with a logical name for each dimension."""
  return nn.LogicallyPartitioned(jnp.zeros(shape), names)


def places(tokens_BL: jax.Array, segments_BL: jax.Array | None, cache: Cache | None) -> jax.Array:
  """The position of each token in its document, i32[B, L]: from the start of its segment, or on from the cache."""
  index_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1], dtype=jnp.int32), tokens_BL.shape)
  if cache is not None:
    return index_BL + cache.lengths_B[:, None]
  if segments_BL is None:
    return index_BL
  before_BL = jnp.pad(segments_BL, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
  return index_BL - jax.lax.cummax(jnp.where(segments_BL != before_BL, index_BL, 0), axis=1)


def see(config: Decoder, positions_BL, segments_BL, cache: Cache | None, role: Role) -> Sight:
  """What the rows see in layers of this role, and how their queries and keys turn."""
  batch, length = positions_BL.shape
  seen_BL = jnp.ones((batch, length), bool) if segments_BL is None else segments_BL != 0
  ranges = look(config, seen_BL, segments_BL, cache, role)
  order = order_of(ranges.kind, parts('length', length), length)
  rotary, bound, angles = config.positions, length if cache is None else None, None
  if role.turned and isinstance(rotary, Rotary):
    angles = turns(rotary, config.attention.head_size, dealt(positions_BL, order), role.local, bound)
  return Sight(ranges, dealt(seen_BL, order), order, angles, None if cache is None else cache.lengths_B)


def look(config: Decoder, seen_BL: jax.Array, segments_BL: jax.Array | None, cache: Cache | None, role: Role) -> Ranges:
  """The keys that each row sees in layers of this role."""
  window = config.attention.window.size if role.local and config.attention.window else None
  if cache is not None:
    return cached_ranges(cache.lengths_B, seen_BL, window=window)
  if segments_BL is None and config.causal:
    return causal_ranges(len(seen_BL), seen_BL.shape[1], window)
  segments_BL = seen_BL.astype(jnp.int32) if segments_BL is None else segments_BL
  return packed_ranges(segments_BL, causal=config.causal, window=window)


def check_length(config: Decoder, length: int) -> None:
  """Raises: ConfigError if rows of so many tokens have positions that the model has no vectors for."""
  if isinstance(config.positions, Learned) and length > (size := config.positions.length - config.positions.first):
    raise ConfigError('model.too-long', f'rows of {length} tokens', f'the position table has {size} entries',
                      f'use at most {size} tokens, or Learned(length={length + config.positions.first}), or Rotary()')


def embed(config: Decoder, params: Params, tokens_BL: jax.Array, positions_BL: jax.Array,
          types_BL: jax.Array | None = None) -> jax.Array:
  """The vectors of the tokens, with those of their positions and types if these are learned: [B, L, D], the stream's dtype."""
  demand(types_BL is None or isinstance(config.embedding, Typed), 'Decoder.embedding', config.embedding,
         'types were given, and there are no vectors for them', 'leave the types out, or use Typed()')
  x_BLD = params['embedding']['table'][tokens_BL].astype(config.stream_dtype) * config.embedding_scale
  if isinstance(config.positions, Learned):
    check_length(config, tokens_BL.shape[1])
    x_BLD = x_BLD + params['positions']['table'][positions_BL + config.positions.first].astype(config.stream_dtype)
  if isinstance(config.embedding, Typed):
    x_BLD = x_BLD + params['types']['table'][0 if types_BL is None else types_BL].astype(config.stream_dtype)
  if config.embedding is not None:
    x_BLD = Norm(config.norm).apply({'params': params['embedding_norm']}, x_BLD)
  return pin(x_BLD, 'batch', 'length', None)


def head(config: Decoder, params: Params, x_BLD: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The operands of the last matmul, x[B, L, D] and w[D, V]; a bias makes both longer by one, x with a 1."""
  w_DV = params['head']['weight'] if 'head' in params else params['embedding']['table'].T
  if config.head is not None:
    x_BLD = transform(config, config.head, params['transform'], x_BLD)
  if config.mup is not None:
    x_BLD = x_BLD * (config.mup.base_width / config.width)
  if config.head is None or not config.head.logit_bias:
    return x_BLD, w_DV
  one_BL1 = jnp.ones((*x_BLD.shape[:-1], 1), x_BLD.dtype)
  bias_1V = params['transform']['bias'][None].astype(w_DV.dtype)
  return jnp.concatenate([x_BLD, one_BL1], -1), jnp.concatenate([w_DV, bias_1V])


def transform(config: Decoder, head: Transformed, params: Params, x_BLD: jax.Array) -> jax.Array:
  """What the head reads, [B, L, D]."""
  norm: Any = Norm(config.norm)
  x_BLD = dense(x_BLD, params['dense']['weight'], dtype=config.compute_dtype)
  if head.dense_bias:
    x_BLD = x_BLD + params['dense']['bias'].astype(x_BLD.dtype)
  return norm.apply({'params': params['norm']}, ACTIVATIONS[head.activation](x_BLD))


def laid_out(config: Decoder, params: Params) -> Params:
  """The same parameters for many small forward passes: layers apart, a head of its own, matrices in the matmuls' dtype.

  It is a second copy, and what is laid out already comes back as it is. Without it each step of a decoding loop would cut,
  turn and cast every weight before using it.
  """
  if isinstance(params['layers'], tuple):
    return params

  def cast(path, leaf):
    return ready(leaf, config.compute_dtype) if path[-1].key in ('weight', 'up', 'down') else leaf

  def made(part: Params) -> Params:
    return jax.tree_util.tree_map_with_path(cast, part, is_leaf=is_weight)

  head = params['head']['weight'] if 'head' in params else params['embedding']['table'].T
  return made({**own(params), 'head': {'weight': head}, 'layers': {}}) | {
    'layers': tuple(made(layer) for layer in split(params['layers'], config.layers))}
