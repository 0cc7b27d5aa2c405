"""What a training will cost, before it begins: parameters, tokens, FLOPs, and bytes on each device."""

import math
from typing import Any

import jax

from model.count import flops_per_token, parameters
from train.build import Built


def price(built: Built, batch: int, length: int, steps: int, held: dict[str, Any] | None = None) -> dict[str, str]:
  """The price of `steps` steps of `batch` rows of `length` tokens, in words, from shapes alone: nothing is computed.

  `held` are abstract arrays by what they are: what the source of batches keeps on the devices. Models beside the one that
  learns are read forwards alone, a third of what learning costs.
  """
  tokens = batch * length * steps
  others = sum(flops_per_token(other.config, length) / 3 for other in built.beside.values())
  flops = tokens * (flops_per_token(built.model.config, length) + others)
  params, state = (bytes_per_device(tree) for tree in (built.abstract.params, built.abstract))
  split = ' x '.join(f'{name} {size}' for name, size in built.mesh.shape.items() if size > 1)
  learned = short(sum(leaf.size for leaf in jax.tree.leaves(built.abstract.params)))
  beside = {f'the {name}': other.params for name, other in built.beside.items()}
  kept = ''.join(f', {size(bytes_per_device(tree))} of {name}' for name, tree in (beside | (held or {})).items())
  base = f', {size(bytes_per_device(built.frozen))} of frozen weights' if built.frozen else ''
  return {
      'parameters': f'{learned} learned beside {short(parameters(built.model.config))} frozen' if built.frozen else learned,
      'tokens': f'{short(tokens)} in {steps:,} steps of {batch} rows of {length:,}',
      'compute': f'{flops:.2e} FLOPs, forward and backward',
      'devices': f'{built.mesh.size}: {split}' if split else '1',
      'memory per device': f'{size(state)} of state{base}{kept} and {size(params)} of gradients; activations come on top',
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
