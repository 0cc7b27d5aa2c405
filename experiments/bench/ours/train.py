"""Our training step: `python -m experiments.bench.ours.train FOLDER DTYPE`.

As a run takes it: packed rows, accumulated parts, donated state, an optimizer that skips what is not finite.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.bench.ours.model import built, export, temporary_mb
from experiments.bench.task import BATCHES, INITIAL, WARM
from experiments.bench.worker import Sample, serve, timed
from model.config import Dtype
from model.sharding import batch_sharding
from train.build import start


class Train:
  """The step of the task, on batches that lie on the device."""

  def __init__(self, folder: Path, dtype: Dtype):
    self.folder, self.built, self.index = folder, built(dtype), 0

  def prepare(self) -> dict[str, Any]:
    rows = np.load(self.folder / BATCHES)
    place = batch_sharding(self.built.mesh)
    self.batches = [jax.device_put({'tokens': tokens, 'segments': np.ones_like(tokens)}, place) for tokens in rows]
    self.state = start(self.built, 0)
    if not (self.folder / INITIAL).exists():
      export(self.state.params, self.folder / INITIAL)
    with jax.set_mesh(self.built.mesh):
      self.compiled = jax.jit(self.built.step, donate_argnums=0).lower(self.state, {}, self.batches[0]).compile()
    return {'losses': [self.step()['loss'] for _ in range(WARM)], 'temporary_mb': temporary_mb(self.compiled)}

  def step(self) -> Sample:
    batch = self.batches[self.index % len(self.batches)]
    self.index += 1
    sample, (self.state, metrics) = timed(lambda: jax.block_until_ready(self.compiled(self.state, {}, batch)))
    return sample | {'loss': float(metrics['loss'].value())}


if __name__ == '__main__':
  folder, word = sys.argv[1:]
  dtypes: dict[str, Dtype] = {'float32': 'float32', 'bfloat16': 'bfloat16'}
  serve(Train(Path(folder), dtypes[word]))
