"""A tensor that lies in a file: known by name, shape and type, read only where somebody asks for it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Slices = tuple[slice, ...]             # one for each dimension, without steps; fewer leave the last dimensions whole


class Tensor(NamedTuple):
  """`read` gives a part of it as an array of its own, in `dtype`: a slice of a file's bytes is never a view into the file."""

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[Slices], np.ndarray]

  def whole(self) -> np.ndarray:
    return self.read(())


Tensors = Mapping[str, Tensor]         # of a file, or of a folder of them, by name
