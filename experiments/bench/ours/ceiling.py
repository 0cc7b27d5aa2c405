"""The machine's ceiling, measured in turn with those who are held against it: float32 products of matrices."""

from typing import Any

from experiments.bench.worker import Sample, serve, timed
from train.eval.ceiling import matmul_ceiling


class Ceiling:
  """Each step finds the fastest product of a short while, in FLOP/s."""

  def prepare(self) -> dict[str, Any]:
    return {'flops': matmul_ceiling()}

  def step(self) -> Sample:
    sample, flops = timed(lambda: matmul_ceiling(seconds=0.2))
    return sample | {'flops': flops}


if __name__ == '__main__':
  serve(Ceiling())
