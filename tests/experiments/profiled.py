"""Tiny runs whose steps are profiled by the hook: `python -m tests.experiments.profiled FOLDER`.

In a process of their own, for a profile holds every program that its process has: among those of other tests it takes minutes.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from train.hooks import Profile


def step(params, x):
  """A loop of three products."""
  def body(x, w):
    return jnp.tanh(x @ w), None
  with jax.named_scope('layers'):
    return jax.lax.scan(body, x, params)[0].sum()


def go(folder: Path, first: int, last: int, steps: int) -> None:
  """So many steps, those after the first until the last of them profiled."""
  call, params, x = jax.jit(step), jnp.ones((3, 256, 256)), jnp.ones((128, 256))
  hook = Profile(folder, first, last)
  for number in range(1, steps + 1):
    hook(number, call(params, x), {})
  jax.block_until_ready(call(params, x))
  hook.close()


if __name__ == '__main__':
  [root] = map(Path, sys.argv[1:])
  go(root / 'none', 1, 100, 0)
  go(root / 'whole', 1, 4, 6)
  go(root / 'early', 1, 100, 1)
