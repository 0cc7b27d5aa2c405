"""Edits that freeze parts of a model for a run: these get no gradient and no moments, and are in no checkpoint.

    Run(restore=parent, edits=(Score(), Freeze()), ...)                        a linear probe: an added head alone learns
    Run(restore=parent, edits=(Classifier(8), FreezeLowest(4)), ...)           so do the layers from the fifth on
    Run(restore=parent, edits=(LoRA(8), FreezeLowest(4)), ...)                 adapters of these layers alone

They change no weight. A freeze applies to what is there before it: adapters and new tokens that come after it among the edits
learn. What other edits put beside the model is never frozen. A run that restores from this one trains everything again.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from model.decoder import OWN
from model.edit import Edit
from model.errors import ConfigError
from model.sharding import unbox

BEFORE = ('embedding', 'types', 'positions', 'embedding_norm')           # the parts that stand before the layers


@dataclass(frozen=True)
class Freezing(Edit):
  """An edit that freezes parameters."""

  lasting: ClassVar[bool] = False

  @abstractmethod
  def still(self, part: str, size: int, layers: int) -> int:
    """How many of the first `size` entries of a parameter stay as they are, in a model of so many layers.

    Entries of a parameter of 'layers' are layers, the last of them the model's last.
    """


@dataclass(frozen=True)
class Freeze(Freezing):
  """Freezes parts, by their names in the tree; by default the whole model. Names that the model lacks are ignored."""

  parts: tuple[str, ...] = OWN

  def __post_init__(self):
    if unknown := set(self.parts) - {*OWN}:
      raise ConfigError('edit.no-part', f'Freeze: {min(unknown)!r}', f'the parts of a model are {", ".join(OWN)}',
                        'name some of them')

  def __call__(self, params: Any, key: jax.Array) -> Any:
    """The tree as it is. Raises: ConfigError `edit.nothing` where the model has none of these parts."""
    if not set(self.parts) & params.keys():
      raise ConfigError('edit.nothing', f'Freeze({self.parts})', f'the model has {", ".join(params)}', 'name some of these')
    return params

  def still(self, part: str, size: int, layers: int) -> int:
    return size if part in self.parts else 0


@dataclass(frozen=True)
class FreezeLowest(Freezing):
  """Freezes the first `layers` layers and the embeddings before them."""

  layers: int

  def __post_init__(self):
    if self.layers < 0:
      raise ConfigError('config.out-of-range', f'FreezeLowest({self.layers})', 'it counts layers', 'use 0 or more')

  def __call__(self, params: Any, key: jax.Array) -> Any:
    """The tree as it is. Raises: ConfigError where the model has fewer layers."""
    if (most := depth(params['layers'])) < self.layers:
      raise ConfigError('config.out-of-range', f'FreezeLowest({self.layers})', f'the model has {most} layers',
                        f'use at most {most}')
    return params

  def still(self, part: str, size: int, layers: int) -> int:
    if part == 'layers':
      return min(max(self.layers - (layers - size), 0), size)
    return size if part in BEFORE else 0


def depth(stacked: Any) -> int:
  """How many layers these stacked parameters have; a parameter that the first layer lacks is stacked for the others."""
  return max((leaf.shape[0] for leaf in jax.tree.leaves(unbox(stacked))), default=0)
