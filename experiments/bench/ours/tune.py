"""Our steps of fine-tuning and of preferences: `python -m experiments.bench.ours.tune FOLDER TASK sft|dpo`.

As a run takes them: parts of a batch, donated state, an optimizer that skips what is not finite. The log-probs of the
reference are a column of the batch, as `align.reference` makes one; here they are random numbers about where those of an
untrained model lie, so that the first loss is not ln 2 whatever a model says.

Letters: N batches, B pairs, P the two sides, L positions.
"""

import math
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from align.dpo import DPO
from experiments.bench.ours.model import PARTS, decoder, export, optimizer, temporary_mb
from experiments.bench.task import BATCHES, BETA, INITIAL, PAIRS, TASKS, WARM, Task
from experiments.bench.worker import Sample, serve, timed
from model.sharding import batch_sharding
from train.build import build, start
from train.objectives import NextToken
from train.types import Objective

Columns = dict[str, np.ndarray]
OBJECTIVES: dict[str, Objective] = {'sft': NextToken(), 'dpo': DPO(beta=BETA)}
REFERRED = 10.0                        # nats: the deviation of a side's reference


def write_pairs(folder: Path, task: Task) -> None:
  """The rows of the batches as pairs with one prompt: tokens i32[N, B, P, L], reference f32[N, B, P]."""
  rows = np.load(folder / BATCHES)[..., :task.length]
  tokens_NBPL = rows.reshape(len(rows), task.pairs, 2, task.length).copy()
  tokens_NBPL[:, :, 1, :task.prompt] = tokens_NBPL[:, :, 0, :task.prompt]
  said = -math.log(task.vocab) * (task.length - task.prompt)
  reference = np.random.default_rng(0).normal(said, REFERRED, tokens_NBPL.shape[:3])
  np.savez(folder / PAIRS, tokens=tokens_NBPL, reference=reference.astype(np.float32))


def batches(folder: Path, task: Task, kind: str) -> list[Columns]:
  """Rows whose first half is a prompt, with the columns that the objective reads."""
  if kind == 'sft':
    return [_masked(tokens, task) for tokens in np.load(folder / BATCHES)]
  with np.load(folder / PAIRS) as held:
    pairs = list(zip(held['tokens'], held['reference']))
  ones = np.ones(task.pairs, np.float32)
  return [_masked(tokens, task) | {'reference': reference, 'label': ones, 'margin': 0 * ones} for tokens, reference in pairs]


def _masked(tokens: np.ndarray, task: Task) -> Columns:
  learnt = np.broadcast_to(np.arange(tokens.shape[-1]) >= task.prompt, tokens.shape)
  return {'tokens': tokens, 'segments': np.ones_like(tokens), 'mask': learnt.astype(np.float32)}


class Tune:
  """The step, on batches that lie on the device."""

  def __init__(self, folder: Path, task: Task, kind: str):
    self.folder, self.task, self.kind, self.index = folder, task, kind, 0
    rows = task.batch if kind == 'sft' else task.pairs
    length = task.length if kind == 'sft' else task.length - 1
    self.built = build(decoder(task), OBJECTIVES[kind], optimizer(task), 10_000, batch=rows, length=length,
                       parts=min(PARTS, rows), devices=jax.devices()[:1])

  def prepare(self) -> dict[str, Any]:
    place = batch_sharding(self.built.mesh)
    self.batches = [jax.device_put(batch, place) for batch in batches(self.folder, self.task, self.kind)]
    self.state = start(self.built, 0)
    if not (self.folder / INITIAL).exists():
      export(self.state.params, self.folder / INITIAL, self.task)
    with jax.set_mesh(self.built.mesh):
      self.compiled = jax.jit(self.built.step, donate_argnums=0).lower(self.state, {}, self.batches[0]).compile()
    return {'losses': [self.step()['loss'] for _ in range(WARM)], 'temporary_mb': temporary_mb(self.compiled)}

  def step(self) -> Sample:
    batch = self.batches[self.index % len(self.batches)]
    self.index += 1
    sample, loss = timed(lambda: self._update(batch))
    return sample | {'loss': loss}

  def _update(self, batch) -> float:
    self.state, metrics = jax.block_until_ready(self.compiled(self.state, {}, batch))
    return float(metrics['loss'].value())


if __name__ == '__main__':
  place, name, kind = sys.argv[1:]
  serve(Tune(Path(place), TASKS[name], kind))
