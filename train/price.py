"""What a training will cost, before it begins: parameters, tokens, FLOPs, and bytes on each device."""

import math
from typing import Any

import jax

from model.config import Compute
from model.count import parameters
from train.build import Built
from train.flops import work_per_token
from train.memory import temporaries


def price(built: Built, batch: int, length: int, steps: int, held: dict[str, Any] | None = None, *, sides: int = 1,
          parts: int = 1, compute: Compute = Compute()) -> dict[str, str]:
  """The cost of `steps` steps of `batch` rows, each of `sides` texts of `length` tokens, in words, from shapes alone.

  `held` are the abstract arrays, by name, that the source of batches keeps on the devices. The activations are an estimate:
  see `train.memory`.
  """
  tokens = batch * sides * length * steps
  flops = tokens * work_per_token(built, length)
  split = ' x '.join(f'{name} {size}' for name, size in built.mesh.shape.items() if size > 1)
  learned = short(sum(leaf.size for leaf in jax.tree.leaves(built.abstract.params)))
  return {
      'parameters': f'{learned} learned beside {short(parameters(built.model.config))} frozen' if built.frozen else learned,
      'tokens': f'{short(tokens)} in {steps:,} steps of {batch} rows of {sides * length:,}',
      'compute': f'{flops:.2e} FLOPs, forward and backward',
      'devices': f'{built.mesh.size}: {split}' if split else '1',
      'memory per device': _memory(built, held or {}, temporaries(built, compute, batch * sides, length, parts), parts),
  }


def _memory(built: Built, held: dict[str, Any], passing: int, parts: int) -> str:
  """The bytes of a device in words; `passing` are those of gradients and activations."""
  params, state, frozen = (bytes_per_device(tree) for tree in (built.abstract.params, built.abstract, built.frozen))
  others = {f'the {name}': other.params for name, other in built.beside.items()} | held
  lying = ({'frozen weights': frozen} if built.frozen else {}) | {name: bytes_per_device(tree) for name, tree in others.items()}
  total = state + sum(lying.values()) + passing
  kept = ''.join(f', {size(count)} of {name}' for name, count in lying.items())
  return (f'about {size(total)}: {size(state)} of state{kept}, {size(params)} of gradients, and '
          f'{size(max(0, passing - params))} of activations in {parts} part{"s" * (parts > 1)}')


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
