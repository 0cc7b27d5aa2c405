"""Losses and gradients of small models on the platform that is here: `python -m tests.gpu.losses FILE.npz`."""

import json
import sys

import jax
import numpy as np

from tests.model.variants import VARIANTS, made, tokens
from train.objectives import NextToken
from train.step import gradient

NAMES = ('llama', 'gemma2', 'mixtral', 'bfloat16')


def computed() -> dict[str, np.ndarray]:
  """`{'llama loss': ..., 'llama gradient': ...}` of packed rows, gradients as one vector."""
  found = {}
  rows = tokens(4, 25)
  segments = np.sort(np.random.default_rng(0).integers(1, 4, (4, 25)))
  for name in NAMES:
    model, params = made(VARIANTS[name])
    with jax.default_matmul_precision('highest'):
      grads, loss = jax.jit(gradient(NextToken(z_loss=1e-3)(model)))(
        params, {}, {'tokens': rows, 'segments': segments}, jax.random.key(0))
    found[f'{name} loss'] = np.asarray(loss.objective.value())
    found[f'{name} gradient'] = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(grads)])
  return found


if __name__ == '__main__':
  np.savez(sys.argv[1], **computed())
  print(json.dumps(jax.default_backend()))
