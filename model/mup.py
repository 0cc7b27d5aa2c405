"""Maximal update parametrisation: its learning rates (`model.config.MuP` has the rest)."""

from typing import Any

import jax

from model.config import Decoder
from model.kinds import kinds


def lr_multipliers(config: Decoder, boxed: Any) -> Any:
  """What the learning rate is multiplied by, leaf by leaf: base_width / width for matrices under muP, else 1.0.

  Yang et al. 2022, table 8: the head's factor is in the forward pass, so head, embedding and vectors keep the rate. It
  is for rules whose updates have a fixed size per number and add up in one direction (Adam, Lion).
  """
  ratio = 1.0 if config.mup is None else config.mup.base_width / config.width
  return jax.tree.map(lambda kind: ratio if kind == 'matrix' else 1.0, kinds(boxed))
