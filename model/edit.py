"""Edit: a change to the parameters of a model before it is trained on, such as LoRA or Quantize."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import jax

from model.config import Decoder


class Edit(ABC):
  """A function of (params, key): takes a plain tree, or one boxed with logical names (`Model.init`), and gives one like it.

  So the shapes and shardings of an edited model are known before any weight is read. What an edit adds beside the parts of
  the model itself (`model.decoder.OWN`) learns even where adapters freeze all else.
  """

  lasting: ClassVar[bool] = True       # False: it holds for the run that names it, and not for runs that restore from that

  @abstractmethod
  def __call__(self, params: Any, key: jax.Array) -> Any: ...

  def model(self, config: Decoder) -> Decoder:
    """The config of the edited model: the same, unless the edit changes layers or vocabulary.

    Raises: ConfigError if such a model cannot be edited so.
    """
    return config
