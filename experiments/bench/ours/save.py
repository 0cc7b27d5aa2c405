"""Checkpoints of half a gigabyte: `python -m experiments.bench.ours.save FOLDER ours|orbax|safetensors`.

The peers are libraries of the project's own, as they come: Orbax's AsyncCheckpointer over a StandardCheckpointHandler,
and safetensors, which writes one file and knows neither threads nor steps.
"""

import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.worker import Sample, serve, timed
from train.saving.leaves import bits, named
from train.types import State

BYTES, WIDE = 500e6, 640


def born() -> State:
  """A state like that of a decoder with Adam: ten matrices and a vector a layer, three times over."""
  layers, random = round(BYTES / 3 / 4 / (10 * WIDE * WIDE)), np.random.default_rng(0)

  def tree() -> dict[str, Any]:
    return {f'layer_{i}': {f'w{j}': jnp.asarray(random.standard_normal((WIDE, WIDE), np.float32)) for j in range(10)}
            | {'scale': jnp.ones(WIDE)} for i in range(layers)}

  return State(jnp.int32(0), tree(), {'mu': tree(), 'nu': tree()}, jax.random.key(0))


@partial(jax.jit, donate_argnums=0)
def update(state: State) -> State:
  """Something that takes the memory of the state, as every training step does."""
  return replace(state, params=jax.tree.map(lambda x: x + 1, state.params),
                 opt_state=jax.tree.map(lambda x: x * 1.5, state.opt_state))


class Saver(ABC):
  """Each step saves a new state and restores it. 'stall' is what the training loses: the call, and the next update's
  slowness beside an update with no save before it."""

  def __init__(self, folder: Path):
    self.folder, self.index = folder, 0

  def prepare(self) -> dict[str, Any]:
    self.state = jax.block_until_ready(born())
    self.step()                        # the first save has to get its memory
    return {'bytes': sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))}

  def step(self) -> Sample:
    self.index += 1
    plain = self._update()
    calm, after = 0.0, 0.0

    def whole() -> None:
      nonlocal calm, after
      calm = timed(self.begin)[0]['wall']
      after = self._update()
      self.finish()

    saved, _ = timed(whole)
    restored, _ = timed(lambda: jax.block_until_ready(self.restore()))
    return {**saved, 'call': calm, 'stall': calm + max(0.0, after - plain), 'restore': restored['wall']}

  def _update(self) -> float:
    sample, self.state = timed(lambda: jax.block_until_ready(update(self.state)))
    return sample['wall']

  @abstractmethod
  def begin(self) -> None:
    """Starts a save; the state may change as soon as it returns."""

  @abstractmethod
  def finish(self) -> None:
    """Returns when the save is on the disk."""

  @abstractmethod
  def restore(self) -> Any:
    """The state that was saved last."""


class Ours(Saver):
  """Verified on the way in and on the way out."""

  def __init__(self, folder: Path):
    from train.checkpoint import Checkpoints
    super().__init__(folder)
    self.saves = Checkpoints(folder)

  def begin(self) -> None:
    self.saves.save(self.index, self.state, {'source': self.index})

  def finish(self) -> None:
    self.saves.wait()

  def restore(self) -> Any:
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.state)
    return self.saves.restore(like)


class Orbax(Saver):
  """In the default layout; the step before the last is deleted when a save is done, as ours deletes it."""

  def __init__(self, folder: Path):
    import orbax.checkpoint as ocp
    super().__init__(folder)
    self.ocp, self.checkpointer = ocp, ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())

  def begin(self) -> None:
    self.item = bits(named(self.state))
    self.checkpointer.save(self.folder / str(self.index), args=self.ocp.args.StandardSave(self.item))
    self.like = jax.tree.map(self.ocp.utils.to_shape_dtype_struct, self.item)
    del self.item

  def finish(self) -> None:
    self.checkpointer.wait_until_finished()
    shutil.rmtree(self.folder / str(self.index - 2), ignore_errors=True)

  def restore(self) -> Any:
    return self.checkpointer.restore(self.folder / str(self.index), args=self.ocp.args.StandardRestore(self.like))


class Safetensors(Saver):
  """One file; the training stands still until it is written."""

  def begin(self) -> None:
    from safetensors.numpy import save_file
    leaves = {name: np.asarray(leaf) for name, leaf in bits(named(self.state)).items()}
    save_file(leaves, self.folder / f'{self.index % 2}.safetensors')

  def finish(self) -> None:
    """It is there already."""

  def restore(self) -> Any:
    from safetensors.flax import load_file
    return load_file(self.folder / f'{self.index % 2}.safetensors')


if __name__ == '__main__':
  folder, form = sys.argv[1:]
  Path(folder).mkdir()
  savers: dict[str, Callable[[Path], Saver]] = {'ours': Ours, 'orbax': Orbax, 'safetensors': Safetensors}
  serve(savers[form](Path(folder)))
