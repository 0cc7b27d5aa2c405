"""Our loss head, forward and backward: `python -m experiments.bench.ours.head TASK DTYPE`."""

import sys
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.ours.model import temporary_mb
from experiments.bench.task import TASKS, Task
from experiments.bench.worker import Sample, serve, timed
from kernels.head import weighted_nll


class Head:
  """The mean loss of [B, L, D] against V words, and its gradients: x in the type of the product, w in float32."""

  def __init__(self, task: Task, dtype: str):
    self.task, self.dtype = task, dtype

  def prepare(self) -> dict[str, Any]:
    def mean(x, w, targets, weights):
      return weighted_nll(x, w, targets, weights, dtype=self.dtype).nll / weights.sum()

    task, (a, b, c) = self.task, jax.random.split(jax.random.key(0), 3)
    shape = task.batch, task.length
    x, w = jax.random.normal(a, (*shape, task.width)), 0.02 * jax.random.normal(b, (task.width, task.vocab))
    self.arguments = x.astype(self.dtype), w, jax.random.randint(c, shape, 0, task.vocab), jnp.ones(shape)
    self.compiled = jax.jit(jax.value_and_grad(mean, (0, 1))).lower(*self.arguments).compile()
    self.step()
    return {'temporary_mb': temporary_mb(self.compiled)}

  def step(self) -> Sample:
    return timed(lambda: jax.block_until_ready(self.compiled(*self.arguments)))[0]


if __name__ == '__main__':
  name, dtype = sys.argv[1:]
  serve(Head(TASKS[name], dtype))
