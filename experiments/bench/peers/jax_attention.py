"""Attention of others in JAX, in bfloat16: `python -m experiments.bench.peers.jax_attention [quick]`.

cuDNN told of the rows' ranges by an array, which is what it takes where they are no band, and tokamax where it is installed.
A JSON line for each shape, as soon as it is measured.
"""

import importlib.util
import sys
from collections.abc import Iterator

import jax

from experiments.bench.ours.attention import Attend, Case, measure, scale_of
from experiments.bench.sights import Sight, Window, sights
from kernels.attention import Ranges


def cases(quick: bool) -> Iterator[Case]:
  """cuDNN by an array where that is asked for, tokamax everywhere."""
  for sight in sights(quick):
    found: dict[str, Attend] = {}
    if (sight.packed or isinstance(sight, Window)) and jax.default_backend() == 'gpu':
      found['cudnn, array mask'] = masked(sight)
    if importlib.util.find_spec('tokamax') and jax.default_backend() == 'gpu':
      found['tokamax mosaic'] = tokamax(sight)
    yield from (Case(sight, form, attend, backward) for form, attend in found.items() for backward in (False, True))


def masked(sight: Sight) -> Attend:
  """jax.nn's attention by cuDNN with a mask of [B, 1, L, L]."""
  def attend(q: jax.Array, k: jax.Array, v: jax.Array, ranges: Ranges) -> jax.Array:
    mask = ranges.seen(sight.length)[:, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, scale=scale_of(sight), implementation='cudnn')
  return attend


def tokamax(sight: Sight) -> Attend:
  """tokamax's kernel for Hopper. Its door takes no first key of a row, but what is behind it does."""
  def attend(q: jax.Array, k: jax.Array, v: jax.Array, ranges: Ranges) -> jax.Array:
    from tokamax._src.ops.attention import base  # here, so that where it cannot be imported the others are measured still
    from tokamax._src.ops.attention.api import IMPLEMENTATIONS
    plain = not sight.packed and not isinstance(sight, Window)
    mask = base.Mask(k_start=None if plain else ranges.first_BL[:, None], is_causal=True)
    form = next(name for name in ('mosaic_gpu', 'mosaic') if name in IMPLEMENTATIONS)
    return IMPLEMENTATIONS[form](q, k, v, mask=mask, logits_scale=scale_of(sight))
  return attend


if __name__ == '__main__':
  measure(cases('quick' in sys.argv[1:]))
