"""Our training step: `python -m experiments.bench.ours.train FOLDER TASK DTYPE FORM [compile]`, FORM as JSON.

As a run takes it: packed rows, accumulated parts, donated state, an optimizer that skips what is not finite. With
`compile` nothing is trained: the program is left in jax's compilation cache for the next who needs it.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.bench.ours.model import Form, attends, built, export, temporary_mb
from experiments.bench.task import BATCHES, INITIAL, TASKS, WARM, Task
from experiments.bench.worker import Sample, serve, shared, timed
from model.config import Compute, Dtype
from model.sharding import batch_sharding
from train.build import start


class Train:
  """The step of the task, on batches that lie on the device."""

  def __init__(self, folder: Path, task: Task, dtype: Dtype, form: Form):
    self.folder, self.task, self.dtype, self.form = folder, task, dtype, form
    self.built, self.index = built(task, dtype, form), 0

  def compile(self) -> None:
    shape = (self.task.batch, self.task.length + 1)
    rows = jax.ShapeDtypeStruct(shape, np.int32, sharding=batch_sharding(self.built.mesh))
    with jax.set_mesh(self.built.mesh):
      step = jax.jit(self.built.step, donate_argnums=0)
      self.compiled = step.lower(self.built.abstract, {}, {'tokens': rows, 'segments': rows}).compile()

  def prepare(self) -> dict[str, Any]:
    rows = np.load(self.folder / BATCHES)
    place = batch_sharding(self.built.mesh)
    self.batches = [jax.device_put({'tokens': tokens, 'segments': np.ones_like(tokens)}, place) for tokens in rows]
    self.state = start(self.built, 0)
    if not (self.folder / INITIAL).exists():
      export(self.state.params, self.folder / INITIAL, self.task)
    seconds = timed(self.compile)[0]['wall']
    return {'losses': [self._take(1)['loss'] for _ in range(WARM)], 'temporary_mb': temporary_mb(self.compiled),
            'compile_s': seconds, 'attention': attends(self.task, self.dtype, self.form),
            'fused_attention': 'fmha' in (self.compiled.as_text() or ''), 'form': asdict(self.form), **memory()}

  def step(self) -> Sample:
    return self._take(self.task.burst)

  def _take(self, count: int) -> Sample:
    """So many steps, of which only the last is waited for."""
    batches = [self.batches[(self.index + i) % len(self.batches)] for i in range(count)]
    self.index += count
    sample, loss = timed(lambda: self._train(batches))
    return shared(sample, count) | {'loss': float(loss)}

  def _train(self, batches) -> Any:
    for batch in batches:
      self.state, metrics = self.compiled(self.state, {}, batch)
    jax.block_until_ready((self.state, metrics))
    return metrics['loss'].value()


def memory() -> dict[str, float]:
  """The most that the device held so far, where it keeps count."""
  stats = jax.devices()[0].memory_stats() or {}
  return {'peak_gb': stats['peak_bytes_in_use'] / 1e9} if 'peak_bytes_in_use' in stats else {}


def form_of(text: str) -> Form:
  """A form from JSON."""
  words = json.loads(text)
  return Form(**{**words, 'compute': Compute(**words.get('compute', {}))})


if __name__ == '__main__':
  place, name, word, told, *only = sys.argv[1:]
  dtypes: dict[str, Dtype] = {'float32': 'float32', 'bfloat16': 'bfloat16'}
  program = Train(Path(place), TASKS[name], dtypes[word], form_of(told))
  if only:
    program.compile()
  else:
    serve(program)
