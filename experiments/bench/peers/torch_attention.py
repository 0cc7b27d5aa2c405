"""PyTorch's attention in bfloat16: `python -m experiments.bench.peers.torch_attention [quick]`.

Causal rows by scaled_dot_product_attention, packed and windowed ones by flex_attention, compiled, with a mask of blocks. A
JSON line for each shape, as soon as it is measured.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from experiments.bench.peers.torch_step import DEVICE
from experiments.bench.sights import BOTH, FORWARD, Sight, Window, sights
from experiments.bench.worker import pace


def attend(sight: Sight) -> Callable[..., torch.Tensor]:
  """What gives the result for q, k, v of [B, H, L, K]."""
  window = sight.window if isinstance(sight, Window) else sight.length
  if not sight.packed and window == sight.length:
    return lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)
  segments = torch.from_numpy(sight.segments()).to(DEVICE)

  def inside(b, h, query, key):
    return (query >= key) & (query - key < window) & (segments[b, query] == segments[b, key])

  mask = create_block_mask(inside, sight.batch, None, sight.length, sight.length, device=DEVICE)
  torch.compiler.reset()               # or it would count the shapes before, and make this one a dynamic one
  flex = torch.compile(flex_attention, dynamic=False)
  return lambda q, k, v: flex(q, k, v, block_mask=mask)


def measured(sight: Sight, backward: bool) -> dict[str, Any]:
  """Seconds of a call and TFLOP/s of live scores."""
  torch.manual_seed(0)
  shape = (sight.batch, sight.heads, sight.length, sight.head_size)
  q, k, v, g = (torch.randn(shape, device=DEVICE, dtype=torch.bfloat16, requires_grad=backward and i < 3) for i in range(4))
  call = attend(sight)

  def once():
    out = call(q, k, v)
    if backward:
      q.grad = k.grad = v.grad = None
      out.backward(g)

  seconds = pace(once, lambda _: torch.cuda.synchronize() if DEVICE == 'cuda' else None)
  return {'seconds': seconds, 'tflops': sight.flops(BOTH if backward else FORWARD) / seconds / 1e12}


def main(quick: bool) -> None:
  for sight in sights(quick):
    for backward in (False, True):
      form = 'torch flex' if sight.packed or isinstance(sight, Window) else 'torch SDPA'
      line = {'sight': sight.name, 'form': form, 'backward': backward}
      try:
        line |= measured(sight, backward)
      except Exception as error:       # one shape that fails leaves the others to be measured
        line['failed'] = str(error)[:500]
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  main('quick' in sys.argv[1:])
