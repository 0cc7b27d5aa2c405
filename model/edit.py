"""What may be done to the parameters of a model before it learns on: a frozen value that is called with (params, key)."""

from abc import ABC, abstractmethod
from typing import Any

import jax


class Edit(ABC):
  """Takes a plain tree, or one boxed with logical names (`Model.init`), and gives one like it.

  So what an edited model is, and where it lies on a mesh, is known from shapes alone, before a byte of it is read. What an
  edit adds beside the parts of the model itself (`model.decoder.OWN`) learns even where adapters freeze all else.
  """

  @abstractmethod
  def __call__(self, params: Any, key: jax.Array) -> Any: ...
