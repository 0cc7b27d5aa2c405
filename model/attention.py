"""The attention of a block: one matmul for queries, keys and values, rotation, the door in kernels/, one matmul out."""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from kernels.attention import attention
from kernels.attention_held import Held
from kernels.attention_ring import ring
from kernels.ranges import Ranges
from kernels.zigzag import Order
from model.cache import Layer, write
from model.config import AllHeads, Decoder
from model.linear import Dense
from model.norm import Norm
from model.rotary import rotate
from model.sharding import laid, pin


@struct.dataclass
class Sight:
  """Masks, positions and rotary angles of the rows: the same for all layers of a role (model.stack)."""

  ranges: Ranges                                      # for positions in their natural order
  seen_BL: jax.Array                                  # bool: which positions are no padding; lies as `order` says, like `turns`
  order: Order = struct.field(pytree_node=False)      # how positions lie with the devices that they are cut over
  turns: tuple[jax.Array, jax.Array] | None = None    # cosine and sine of the rotary angles; None: nothing turns
  starts_B: jax.Array | None = None                   # with a cache: the slot of each row's first new position


def score_scale(config: Decoder) -> float:
  """The factor of the attention scores q . k."""
  head = config.attention.head_size
  if config.attention.scale is not None:
    return config.attention.scale
  return head ** -0.5 if config.mup is None else config.mup.base_head_size ** 0.5 / head


def door(k_BSGK: jax.Array, order: Order) -> Callable[..., jax.Array]:
  """The function that attends to such keys: ring attention if the mesh cuts their positions, else `kernels.attention`."""
  where = laid(k_BSGK.shape, 'batch', 'length', 'heads', None)
  return attention if where[1] is None else partial(ring, spec=where, order=order)


class Attention(nn.Module):
  """x_BLD -> the output of attention, [B, L, D], and the layer's cache with the new keys and values.

  Queries, keys and values come from one weight [D, G, H/G + 2, K]: a key head lies beside the queries that it serves,
  so that cutting G over devices cuts all three alike.
  """

  config: Decoder
  implementation: str | None = None

  @nn.compact
  def __call__(self, x_BLD: jax.Array, sight: Sight, layer: Layer | None = None) -> tuple[jax.Array, Layer | None]:
    config, heads = self.config, self.config.attention
    q_BLHK, k_BSGK, v_BSGK = self._project(x_BLD, 'length' if layer is None else None)
    q_BLHK, k_BSGK = self._normed('q_norm', q_BLHK), self._normed('k_norm', k_BSGK)
    if sight.turns is not None:
      q_BLHK, k_BSGK = rotate(q_BLHK, *sight.turns), rotate(k_BSGK, *sight.turns)
    q_BLHK, k_BSGK, v_BSGK = (x.astype(config.compute_dtype) for x in (q_BLHK, k_BSGK, v_BSGK))
    held: tuple[Held, Held] = k_BSGK, v_BSGK
    if layer is not None and sight.starts_B is not None:
      layer = write(layer, k_BSGK, v_BSGK, sight.starts_B)
      held = layer.k_BGSK.swapaxes(1, 2), layer.v_BGSK.swapaxes(1, 2)
    attend = door(k_BSGK, sight.order) if layer is None else attention
    out_BLHK = attend(q_BLHK, *held, sight.ranges, scale=score_scale(config), softcap=heads.softcap,
                      implementation=self.implementation)
    out_BLHK = checkpoint_name(out_BLHK, 'attention').astype(x_BLD.dtype)
    out = Dense((heads.heads, heads.head_size), (config.width,), ('heads', 'head', 'embed'), heads.out_bias,
                config.compute_dtype, name='out')
    return pin(out(out_BLHK), 'batch', 'length', None), layer

  def _project(self, x_BLD: jax.Array, positions: str | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values. `positions` is the logical name of the keys' positions, None (whole) for a cache."""
    config, heads = self.config, self.config.attention
    served = heads.heads // heads.kv_heads
    dense = Dense((config.width,), (heads.kv_heads, served + 2, heads.head_size), ('embed', 'heads', 'slots', 'head'),
                  heads.qkv_bias, config.compute_dtype, name='qkv')
    x = pin(dense(x_BLD), 'batch', 'length', 'heads', None, None)
    q, k, v = jax.lax.split(x, (served, 1, 1), axis=3)      # the gradient is one concatenation, not three paddings
    q_BLHK = q.reshape(*x.shape[:2], heads.heads, heads.head_size)
    k_BLGK, v_BLGK = (pin(part.squeeze(3), 'batch', positions, 'heads', None) for part in (k, v))
    return q_BLHK, k_BLGK, v_BLGK

  def _normed(self, name: str, x_BLHK: jax.Array) -> jax.Array:
    norm = self.config.attention.qk_norm
    if norm is None:
      return x_BLHK
    if isinstance(norm, AllHeads):
      return Norm(norm, 'heads', name=name)(x_BLHK.reshape(*x_BLHK.shape[:2], -1)).reshape(x_BLHK.shape)
    return Norm(norm, 'head', name=name)(x_BLHK)
