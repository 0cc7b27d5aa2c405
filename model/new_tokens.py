"""New tokens for a trained model: further rows of its tables, each initialised as the mean of the old ones.

    extended = ExtendedVocabulary(name='with-tools', base=parent.vocabulary, tokens=('<|tool|>', '<|result|>'))
    edit = NewTokens(2)
    Run(restore=parent, model=edit.model(parent.model), edits=(edit, LoRA(8)), rows=<rows in that vocabulary>, ...)

A token whose row is the mean of the old rows gets a logit no larger than the mean of the old logits' exponentials: what the
model says of old tokens hardly changes (Hewitt 2021, "Initializing new word embeddings for pretrained language models"; his
bound is on the KL, ln(1 + count / vocab) here). Without adapters all rows learn. Beside adapters the new rows alone do, until
`Merge` makes them old. A reference that is the policy without its adapters (`align.dpo`) reads the new rows as they are now:
align in a run after the one that teaches them, and after Merge.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path

from model.adapt import Merge
from model.config import Decoder
from model.decoder import OWN
from model.edit import Edit
from model.errors import ConfigError, demand
from model.sharding import is_box

# what has an entry for each token, and along which dimension
TABLES: dict[tuple[str, ...], int] = {('embedding', 'table'): 0, ('head', 'weight'): 1, ('transform', 'bias'): 0}


@dataclass(frozen=True)
class NewTokens(Edit):
  """Adds `count` tokens, whose ids follow those of the old vocabulary.

  `spare` is how many rows the tables have beyond that vocabulary, where they were padded: new tokens take these first, and
  they too begin as the mean of the rows that tokens have. So fewer rows are added, or none.
  """

  count: int
  spare: int = 0

  def __post_init__(self):
    demand(self.count >= 1, 'NewTokens.count', self.count, 'it counts tokens', 'use 1 or more')
    demand(self.spare >= 0, 'NewTokens.spare', self.spare, 'it counts rows', 'use 0 or more')

  @property
  def rows(self) -> int:
    """How many rows are added."""
    return max(self.count - self.spare, 0)

  def model(self, config: Decoder) -> Decoder:
    return replace(config, vocab=config.vocab + self.rows)

  def __call__(self, params: Any, key: jax.Array) -> Any:
    """Plain or boxed. Raises: ConfigError `edit.order` where what other edits put beside the model has such tables too."""
    leaves, tree = tree_flatten_with_path(params, is_leaf=is_box)
    made = []
    for path, leaf in leaves:
      names = tuple(getattr(part, 'key', '') for part in path)
      if names[0] not in OWN and any(names[-len(table):] == table for table in TABLES):
        raise ConfigError('edit.order', f'NewTokens({self.count})', f'{names[0]} beside the model has a table of its own',
                          'put NewTokens before the edit that made it')
      made.append(self._grown(leaf, TABLES[names]) if names in TABLES else leaf)
    return jax.tree.unflatten(tree, made)

  def _grown(self, leaf: Any, axis: int) -> Any:
    if is_box(leaf):
      return leaf.replace(value=self._grown(leaf.value, axis))
    known = jax.lax.slice_in_dim(leaf, 0, leaf.shape[axis] - self.spare, axis=axis)
    mean = known.astype(jnp.float32).mean(axis, keepdims=True).astype(leaf.dtype)
    untouched = jax.lax.slice_in_dim(leaf, known.shape[axis] + min(self.count, self.spare), leaf.shape[axis], axis=axis)
    return jnp.concatenate([known, jnp.repeat(mean, self.count, axis), untouched], axis)


def newest(edits: Sequence[Edit]) -> int:
  """How many of the last rows belong to tokens that were added since adapters were last merged."""
  rows = 0
  for edit in edits:
    if isinstance(edit, Merge):
      rows = 0
    elif isinstance(edit, NewTokens):
      rows = max(rows + edit.rows, edit.count, edit.spare)
  return rows
