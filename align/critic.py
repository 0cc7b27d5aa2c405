"""Critics for PPO: models that predict the reward of what a policy is writing, beside it in one tree of parameters.

    Run(restore=chat, edits=(Critic(),), rows=Rollouts(credit=FromCritic(), ...), objective=PPO())

A critic begins as a copy of the policy, under a head that says 0. Where the policy is adapters over a frozen base, so is
the critic: adapters of its own over the same base, which is held once.

Letters: B rows, L positions, D width.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from model.adapter_tree import adapted, adapters, detach, over
from model.decoder import Model, box, own
from model.edit import Edit
from model.errors import ConfigError
from model.sharding import is_box
from train.types import Key, Params


@dataclass(frozen=True)
class Critic(Edit):
  """Adds a critic of the reward, or of a cost by its name (`align.constraint`). It comes after adapters among the edits."""

  of: str = 'reward'

  def __call__(self, params: Params, key: Key) -> Params:
    """The parameters with the critic; plain or boxed ones. Raises: ConfigError `edit.twice` if they have it already."""
    critics = params.get('critics', {})
    if self.of in critics:
      raise ConfigError('edit.twice', f'Critic({self.of!r})', 'there is one of that name', 'leave one out of the edits')
    table: Any = params['embedding']['table']
    head_D: Any = jnp.zeros((table.value if is_box(table) else table).shape[1])
    if is_box(table):
      head_D = box(head_D.shape, 'width')
    model = own(params)
    trunk = jax.tree.map(jnp.array, adapters(model) if adapted(model) else model)
    return {**params, 'critics': {**critics, self.of: {**trunk, 'score': {'vector': head_D}}}}


def values(model: Model, params: Params, of: str, tokens_BL: jax.Array, segments_BL: jax.Array) -> jax.Array:
  """A critic's values, f32[B, L]: that at position t has read the tokens up to t, and not yet t + 1."""
  critic, policy = params['critics'][of], own(params)
  trunk = own(critic)
  if adapted(policy):
    trunk = over(trunk, detach(policy))
  x_BLD = model.hidden(trunk, tokens_BL, segments_BL).x_BLD
  return (x_BLD.astype(jnp.float32) * critic['score']['vector'].astype(jnp.float32)).sum(-1)
