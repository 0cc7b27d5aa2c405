"""The FLOPs of a training step: what `--dry_run` prints, and what MFU is computed from."""

from typing import Any

import jax

from model.count import Learning, flops_per_token
from model.decoder import own
from model.freeze import BEFORE, depth
from train.build import Built

LOOKED_UP = ('types', 'positions', 'embedding')      # tables that are looked up: no matmul
HEADS = ('classifier', 'score')                      # what replaces the head over the vocabulary


def work_per_token(built: Built, length: int) -> float:
  """FLOPs of one token in rows of `length` tokens, forward and backward.

  Frozen weights have no gradient of their own, and none flows below the lowest layer that learns. Critics beside the policy
  count in full; models that do not learn, such as teachers, count forward only.
  """
  config, params = built.model.config, built.abstract.params
  mine = flops_per_token(config, length, learning(built, params) if built.frozen else None, not set(HEADS) & params.keys())
  critics = sum(flops_per_token(config, length, learning(built, critic), head=False)
                for critic in params.get('critics', {}).values())
  return mine + critics + sum(flops_per_token(other.config, length) / 3 for other in built.beside.values())


def learning(built: Built, params: Any) -> Learning:
  """What learns, read off a tree of parameters in which frozen ones are None."""
  config, parts = built.model.config, {name: part for name, part in own(params).items() if jax.tree.leaves(part)}
  table = config.tied and not set(HEADS) & params.keys()
  count = sum(leaf.size for name, part in parts.items() if name not in LOOKED_UP or (table and name == 'embedding')
              for leaf in jax.tree.leaves(part))
  below = any(name in BEFORE for name in parts)
  return Learning(count, config.layers if below else depth(parts.get('layers', {})))
