"""What a training will cost, before it begins: parameters, tokens, FLOPs, and bytes on each device."""

import math
from typing import Any

import jax

from model.config import Compute
from model.count import parameters
from train.build import Built
from train.memory import temporaries
from train.work import work_per_token


def price(built: Built, batch: int, length: int, steps: int, held: dict[str, Any] | None = None, *, sides: int = 1,
          parts: int = 1, compute: Compute = Compute()) -> dict[str, str]:
  """The price of `steps` steps of `batch` rows, each of `sides` texts of `length` tokens, in words, from shapes alone.

  `held` are abstract arrays by what they are: what the source of batches keeps on the devices. Nothing is computed, and the
  activations are an estimate: see `train.memory`.
  """
  tokens = batch * sides * length * steps
  flops = tokens * work_per_token(built, length)
  params, state = (bytes_per_device(tree) for tree in (built.abstract.params, built.abstract))
  split = ' x '.join(f'{name} {size}' for name, size in built.mesh.shape.items() if size > 1)
  learned = short(sum(leaf.size for leaf in jax.tree.leaves(built.abstract.params)))
  beside = {f'the {name}': other.params for name, other in built.beside.items()}
  lying = {name: bytes_per_device(tree) for name, tree in (beside | (held or {})).items()}
  kept = ''.join(f', {size(count)} of {name}' for name, count in lying.items())
  fixed = bytes_per_device(built.frozen)
  base = f', {size(fixed)} of frozen weights' if built.frozen else ''
  passing = temporaries(built, compute, batch * sides, length, parts)
  total = state + fixed + sum(lying.values()) + passing
  return {
      'parameters': f'{learned} learned beside {short(parameters(built.model.config))} frozen' if built.frozen else learned,
      'tokens': f'{short(tokens)} in {steps:,} steps of {batch} rows of {sides * length:,}',
      'compute': f'{flops:.2e} FLOPs, forward and backward',
      'devices': f'{built.mesh.size}: {split}' if split else '1',
      'memory per device': f'about {size(total)}: {size(state)} of state{base}{kept}, {size(params)} of gradients, and '
                           f'{size(max(0, passing - params))} of activations in {parts} part{"s" * (parts > 1)}',
  }


def bytes_per_device(tree: Any) -> int:
  """Bytes that one device holds of a tree of abstract arrays with shardings."""
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def short(number: float) -> str:
  """1234567 as 1.23M."""
  for unit, scale in (('T', 1e12), ('B', 1e9), ('M', 1e6), ('k', 1e3)):
    if number >= scale:
      return f'{number / scale:.3g}{unit}'
  return f'{number:.0f}'


def size(count: int) -> str:
  """A number of bytes in MiB or GiB."""
  return f'{count / 2**30:.2f} GiB' if count >= 2**30 else f'{count / 2**20:.1f} MiB'
