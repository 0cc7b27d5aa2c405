"""What may be done to the parameters of a model before it learns on: a frozen value that is called with (params, key)."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import jax

from model.config import Decoder


class Edit(ABC):
  """Takes a plain tree, or one boxed with logical names (`Model.init`), and gives one like it.

  So what an edited model is, and where it lies on a mesh, is known from shapes alone, before a byte of it is read. What an
  edit adds beside the parts of the model itself (`model.decoder.OWN`) learns even where adapters freeze all else.
  """

  lasting: ClassVar[bool] = True       # else it holds for the run that names it, and not for those that go on from that

  @abstractmethod
  def __call__(self, params: Any, key: jax.Array) -> Any: ...

  def model(self, config: Decoder) -> Decoder:
    """What the model is afterwards: the same, but for edits that add or take away what a config tells of.

    Raises: ConfigError where it cannot be made to such a model.
    """
    return config
