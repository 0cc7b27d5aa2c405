"""Our loss head, forward and backward: `python -m experiments.bench.ours.head`."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.ours.model import temporary_mb
from experiments.bench.task import TASK
from experiments.bench.worker import Sample, serve, timed
from kernels.head import weighted_nll


class Head:
  """The mean loss of [B, L, D] against V words, and its gradients."""

  def prepare(self) -> dict[str, Any]:
    def mean(x, w, targets, weights):
      return weighted_nll(x, w, targets, weights).nll / weights.sum()

    shape, (a, b, c) = (TASK.batch, TASK.length), jax.random.split(jax.random.key(0), 3)
    x, w = jax.random.normal(a, (*shape, TASK.width)), 0.02 * jax.random.normal(b, (TASK.width, TASK.vocab))
    self.arguments = x, w, jax.random.randint(c, shape, 0, TASK.vocab), jnp.ones(shape)
    self.compiled = jax.jit(jax.value_and_grad(mean, (0, 1))).lower(*self.arguments).compile()
    self.step()
    return {'temporary_mb': temporary_mb(self.compiled)}

  def step(self) -> Sample:
    return timed(lambda: jax.block_until_ready(self.compiled(*self.arguments)))[0]


if __name__ == '__main__':
  serve(Head())
